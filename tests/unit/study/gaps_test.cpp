#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "study_folder.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/study/study.hpp"

// Studies with trainings that diverge: gaps, not the end.
namespace thalweg::study::gaps_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* experiment = R"(
experiment:
  data:
    dataset: {kind: gaussian_mixture, classes: 4, dimension: 12, train: 400, test: 100, separation: 3}
    partition: {scheme: iid, clients: 1}
  model: {kind: mlp, hidden: [12], norm: none}
  clients: {algorithm: {kind: sgd, lr: 0.1, momentum: 0.9}, batch_size: 20, steps: 60}
  server: {}
samples: {calibration: 100}
)";

Result conduct_of(const std::string& name, const std::string& text, const StudyFolder& folder) {
    const StudyFolder written(name + "-configuration");
    std::filesystem::create_directories(written.path);
    const auto file = written.path / "study.yaml";
    core::write_atomically(file, experiment + text);
    core::SelfCommunicator alone;
    return conduct(name, {.config = file.string(), .progress = false}, folder.path, alone);
}

/// As if that training had diverged: what was measured with its model is taken back.
void spoil(const StudyFolder& folder, const std::string& label, const std::string& measured) {
    core::write_atomically(
        folder.path / "jobs" / "training" / (label + ".json"),
        std::string(
            R"({"loss": null, "steps": null, "seconds": null, "accuracy": null, "diverged": "so it is"})"));
    std::filesystem::remove(folder.path / "models" / (label + ".pt"));
    ASSERT_TRUE(std::filesystem::remove(folder.path / "jobs" / measured));
}

Json result_of(const StudyFolder& folder) {
    return Json::parse(core::read_file(folder.path / "result.json"));
}

int diverged_in(const StudyFolder& folder) {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path / "jobs" / "training"))
        count += Json::parse(core::read_file(entry.path())).contains("diverged");
    return count;
}

TEST(Gaps, TransportWidthGoesOnWithoutPairsThatDiverged) {
    const StudyFolder folder("transport-width");
    const std::string few = R"(
depths: [1]
widths: [4, 8]
pairs: 4
methods: [weight_matching, covariance_matching]
points: 3
)";
    const std::string tame = "trainings: [{name: plain}, {name: slow, set: [clients.algorithm.lr=0.02]}]";
    auto result = conduct_of("transport-width", few + tame, folder);
    for (const auto& finding : result.findings) {
        EXPECT_EQ(finding.numbers["count"], 4) << finding.claim;
        EXPECT_THAT(finding.ours, HasSubstr("p cannot reach 0.01 with 4 units"));
        EXPECT_EQ(finding.seen, Finding::Seen::unsettled);
    }
    spoil(folder, "d1-w8-slow-p2a", "barriers/d1-w8-slow-p2.json");
    result = conduct_of("transport-width", few + tame, folder);
    EXPECT_EQ(result.findings.size(), 5u);
    for (const auto& finding : result.findings) {
        EXPECT_EQ(finding.numbers["count"], 3) << finding.claim;
        EXPECT_THAT(finding.ours, HasSubstr("(3 of 4)"));
    }
    EXPECT_THAT(result_of(folder).dump(), HasSubstr("3 to 4 pairs, for trainings diverged"));

    const StudyFolder other("transport-width-wild");
    result =
        conduct_of("transport-width",
                   few + "trainings: [{name: plain}, {name: wild, set: [clients.algorithm.lr=1e38]}]", other);
    EXPECT_EQ(diverged_in(other), 16);
    for (const auto& finding : result.findings) EXPECT_EQ(finding.seen, Finding::Seen::unsettled);
}

TEST(Gaps, InitialisationGoesOnWithoutPairsThatDiverged) {
    const StudyFolder folder("initialisation");
    const std::string few = R"(
architectures: [{name: mlp, model: {kind: mlp, hidden: [12], norm: none}}]
pairs: 3
steps: [20]
methods: [weight_matching]
)";
    auto result = conduct_of("initialisation", few + "learning_rates: [0.1, 1e38]", folder);
    EXPECT_EQ(diverged_in(folder), 6);
    ASSERT_EQ(result.findings.size(), 2u);
    EXPECT_EQ(result.findings[0].numbers["accuracy"]["count"], 3);
    EXPECT_EQ(result.findings[1].numbers["accuracy"]["count"], 0);
    EXPECT_EQ(result.findings[1].seen, Finding::Seen::unsettled);

    spoil(folder, "mlp-lr0-1-p1b", "averages/mlp-lr0-1-p1.json");
    result = conduct_of("initialisation", few + "learning_rates: [0.1, 1e38]", folder);
    EXPECT_EQ(result.findings[0].numbers["accuracy"]["count"], 2);
    EXPECT_THAT(result.findings[0].ours, HasSubstr("(2 of 3)"));
}

TEST(Gaps, InstabilityCountsWhatIsLeft) {
    const StudyFolder folder("instability");
    const std::string few = R"(
architectures: [{name: mlp, model: {kind: mlp, hidden: [12], norm: none}}]
seeds: 3
points: 3
)";
    auto result = conduct_of("instability", few + "forks: [0, 0.5, 1]", folder);
    EXPECT_THAT(result.findings[1].ours, Not(HasSubstr("of 3")));
    spoil(folder, "mlp-s1-f0", "barriers-mlp/mlp-s1.json");
    result = conduct_of("instability", few + "forks: [0, 0.5, 1]", folder);
    EXPECT_THAT(result.findings[1].ours, HasSubstr("(2 of 3)"));
    EXPECT_THAT(result_of(folder).dump(), HasSubstr("2 to 3 trainings"));

    const StudyFolder other("instability-falling");
    EXPECT_THROW(conduct_of("instability", few + "forks: [0.5, 0]", other), core::UsageError);
}

TEST(Gaps, AnotherProgramsResultsAreSaidToBe) {
    const StudyFolder folder("programs");
    const std::string few = R"(
architectures: [{name: mlp, model: {kind: mlp, hidden: [12], norm: none}}]
seeds: 2
points: 3
forks: [0, 1]
)";
    conduct_of("instability", few, folder);
    const std::string own = result_of(folder)["facts"]["program"];
    conduct_of("instability", few, folder);
    EXPECT_EQ(result_of(folder)["facts"]["program"], own);
    core::write_atomically(folder.path / "programs.json", std::string(R"--(["0.0.1 (12345678)"])--"));
    ::testing::internal::CaptureStderr();
    conduct_of("instability", few, folder);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("another program: 0.0.1 (12345678)"));
    EXPECT_EQ(result_of(folder)["facts"]["program"], "0.0.1 (12345678), then " + own);
    std::filesystem::remove(folder.path / "programs.json");
    conduct_of("instability", few, folder);
    EXPECT_EQ(result_of(folder)["facts"]["program"], "one that is not recorded, then " + own);
}

}  // namespace
}  // namespace thalweg::study::gaps_test
