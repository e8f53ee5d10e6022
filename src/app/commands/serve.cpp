#include <thread>

#include "../context.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/live/follow.hpp"
#include "thalweg/live/server.hpp"

namespace thalweg::app {

namespace {

constexpr std::chrono::milliseconds between_looks{500}, between_waits{50};

struct ServeArguments {
    std::string folder;
    std::string address = "127.0.0.1:8080";
    std::string token;
};

/// Ends by Ctrl-C, which is its ordinary end and no error.
void serve(const Context& context, const ServeArguments& arguments) {
    if (context.communicator.size() > 1)
        throw core::UsageError("thalweg serve is one process; start it without mpirun");
    live::Feed feed;
    live::Follower follower(arguments.folder, feed);
    const live::Server server(feed, nullptr, live::parse_address(arguments.address),
                              live::token_or_environment(arguments.token));
    context.print("Serving " + arguments.folder + " at " + server.address().url() + " (Ctrl-C ends it)\n");
    follower.look();  // a long record takes seconds, in which the page is there already
    while (!core::interrupt_requested()) {
        for (auto waited = between_looks; waited.count() > 0 && !core::interrupt_requested();
             waited -= between_waits)
            std::this_thread::sleep_for(between_waits);
        follower.look();
    }
}

}  // namespace

void add_serve(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "serve", "live page of a run's folder in the browser, which follows the run as it goes on");
    auto arguments = std::make_shared<ServeArguments>();
    command->add_option("RUN_DIR", arguments->folder, "folder of a run: finished, running, or about to begin")
        ->required();
    command
        ->add_option("--address", arguments->address,
                     "ADDRESS:PORT to listen on; port 0: a free one is chosen. Other addresses than loopback "
                     "need a token")
        ->capture_default_str();
    command->add_option("--token", arguments->token,
                        "who opens the page must bring it (?token=…); better in the environment variable "
                        "THALWEG_TOKEN, which no list of processes shows");
    command->footer(
        "Ends by Ctrl-C, with exit code 0. The page of a run in progress, with its buttons, is the run's "
        "own: "
        "record.serve=127.0.0.1:8080.\n"
        "Example:\n  thalweg serve runs/quickstart --address 127.0.0.1:0");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { serve(context, *arguments); }; });
}

}  // namespace thalweg::app
