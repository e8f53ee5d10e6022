#include "thalweg/live/run_page.hpp"

#include "thalweg/record/log.hpp"

namespace thalweg::live {

namespace {
constexpr double seconds_between_states = 0.2;
}

RunPage::RunPage(const Json& run, std::int64_t rounds, const Address& address, const std::string& token)
    : rounds_(rounds), server_(feed_, &control_, address, token) {
    feed_.describe(run);
    phase("running", "starting");
    record::note("live page: " + server_.address().url() + (token.empty() ? "" : "?token=…"));
}

void RunPage::begin(const std::vector<Json>& lines) {
    for (const auto& line : lines) feed_.add_round(round_summary(line));
    done_ = static_cast<double>(lines.size());
    pace_.update(done_);
    publish();
}

void RunPage::progress(double done, const std::string& what) {
    done_ = done;
    what_ = what;
    pace_.update(done);
    if (clock_.seconds() - published_ >= seconds_between_states) publish();
}

void RunPage::round(const Json& line) {
    feed_.add_round(round_summary(line));
    done_ = line["round"].get<double>();
    pace_.update(done_);
    publish();
}

void RunPage::phase(const std::string& phase, const std::string& what) {
    phase_ = phase;
    what_ = what;
    publish();
}

void RunPage::end(const std::string& name, const std::string& what) {
    control_.end();
    tell();
    phase(name, what);
}

void RunPage::checkpoint_done() {
    control_.checkpoint_done();
    tell();
}

void RunPage::tell() {
    control_.tell([this](const Json& now) { feed_.control(now); });
}

void RunPage::publish() {
    published_ = clock_.seconds();
    const double left = phase_ == "running" ? pace_.seconds_left(static_cast<double>(rounds_)) : -1;
    feed_.progress({{"phase", phase_},
                    {"what", what_},
                    {"done", done_},
                    {"rounds", rounds_},
                    {"seconds_left", left < 0 ? Json(nullptr) : Json(left)},
                    {"elapsed", clock_.seconds()}});
}

}  // namespace thalweg::live
