// The symmetries of modules that Python wrote (tests/golden/torchscript) are derived and proved like those of our own.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <filesystem>
#include <map>
#include <set>

#include "thalweg/core/files.hpp"
#include "thalweg/model/model_file.hpp"
#include "thalweg/model/torchscript.hpp"
#include "thalweg/symmetry/gauge.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry::torchscript_symmetry_test {
namespace {

const std::filesystem::path folder = std::filesystem::path(THALWEG_TEST_DIR) / "golden" / "torchscript";

const model::TensorFile& expected() {
    static const auto file = model::load_tensors(folder / "expected.pt");
    return file;
}

std::vector<std::string> module_names() {
    std::vector<std::string> names;
    for (const auto& [key, text] : expected().meta) names.push_back(key.substr(0, key.find('/')));
    return names;
}

/// Modules with hidden channels in no group, and the reasons: buffers that give each channel its own value, a channel
/// shuffle (groups of two sizes on one axis), a flattened pair of axes.
const std::map<std::string, std::set<std::string>> uncovered{
    {"mixed", {"fixed positions", "it meets fixed positions"}},
    {"shuffle", {"it is cut into blocks in two ways"}},
    {"sinusoidal", {"it meets fixed positions"}},
    {"vit", {"it meets fixed positions", "two kinds of channels share an axis"}},
};

class TorchScriptSymmetry : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchScriptSymmetry, GroupsSignsAndScalesKeepTheFunction) {
    const auto input = expected().at(GetParam() + "/input3");
    const auto classes = expected().at(GetParam() + "/output3").size(1);
    for (const std::string how : {"script", "trace"}) {
        const auto imported = model::import_torchscript(folder / (GetParam() + "." + how + ".pt"),
                                                        input.sizes().slice(1).vec(), classes);
        const auto& graph = imported.graph;
        const auto symmetries = derive(graph);
        core::Random random(7, "torchscript");
        const Proof proof = verify(graph, symmetries, random);
        EXPECT_LT(proof.max_error, 1e-10) << how;
        EXPECT_GT(proof.control, 1e-6) << how << ": the proof does not see every group";
        for (const auto kind : {Gauge::Kind::sign, Gauge::Kind::scale}) {
            const Gauge gauge = derive_gauge(graph, kind);
            const Proof factors = verify(graph, gauge, random);
            EXPECT_LT(factors.max_error, 1e-10) << how;
            EXPECT_GT(factors.control, 1e-6) << how << ": the proof does not see every group";
        }
        // Every hidden channel is covered, but for those of four modules, and why.
        std::set<std::string> reasons;
        for (const auto& frozen : symmetries.frozen) reasons.insert(frozen.reason);
        for (const auto* border : {"input", "output", "symbols of the input", "a single channel"})
            reasons.erase(border);
        const auto known = uncovered.find(GetParam());
        EXPECT_EQ(reasons, known == uncovered.end() ? std::set<std::string>{} : known->second) << how;
        EXPECT_EQ(symmetries.covered_channels < symmetries.hidden_channels, !reasons.empty()) << how;
    }
}

INSTANTIATE_TEST_SUITE_P(Modules, TorchScriptSymmetry, ::testing::ValuesIn(module_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace thalweg::symmetry::torchscript_symmetry_test
