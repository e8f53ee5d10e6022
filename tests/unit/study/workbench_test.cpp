#include "thalweg/study/workbench.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "study_folder.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::study::workbench_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::run_ranks;

std::vector<std::string> names(std::size_t count) {
    std::vector<std::string> labels;
    for (std::size_t i = 0; i < count; ++i) labels.push_back("job-" + std::to_string(i));
    return labels;
}

TEST(Workbench, RanksStopWhenAnotherOneFails) {
    const StudyFolder folder("workbench");
    std::atomic<int> done{0};
    run_ranks(2, [&](core::Communicator& communicator) {
        Workbench bench(folder.path, communicator, false);
        try {
            bench.run("jobs", names(400), [&](std::size_t i) -> Json {
                if (i == 0) throw core::RunError("the first one fails");
                std::this_thread::sleep_for(std::chrono::milliseconds(10));
                ++done;
                return i;
            });
            ADD_FAILURE() << "no rank may go on";
        } catch (const core::RunError& error) {
            EXPECT_THAT(error.what(), HasSubstr("the first one fails"));
        }
    });
    EXPECT_LT(done, 200);
    // What was left by the failure stops nobody the next time.
    run_ranks(2, [&](core::Communicator& communicator) {
        Workbench bench(folder.path, communicator, false);
        EXPECT_EQ(bench.run("others", names(6), [](std::size_t i) { return Json(i); }).size(), 6u);
    });
}

TEST(Workbench, ATrainingThatDivergedLeavesNoModelAndOneThatIsGoneIsAnError) {
    const StudyFolder folder("workbench");
    core::SelfCommunicator alone;
    Workbench bench(folder.path, alone, false);
    std::filesystem::create_directories(folder.path / "jobs" / "training");
    core::write_atomically(folder.path / "jobs" / "training" / "wild.json",
                           std::string(R"({"loss": null, "diverged": "its loss is nan"})"));
    core::write_atomically(folder.path / "jobs" / "training" / "gone.json", std::string(R"({"loss": 1.0})"));
    EXPECT_FALSE(bench.has_model("wild"));
    EXPECT_THROW(bench.has_model("gone"), core::RunError);
    EXPECT_THROW(bench.has_model("never"), core::RunError);
    try {
        bench.model("wild");
        ADD_FAILURE() << "there is no such model";
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(), HasSubstr("its loss is nan"));
    }
}

}  // namespace
}  // namespace thalweg::study::workbench_test
