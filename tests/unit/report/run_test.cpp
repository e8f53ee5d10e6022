#include "thalweg/report/run.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"

namespace thalweg::report::run_test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Runs : public ::testing::Test {
  protected:
    Runs() : folder_(fs::temp_directory_path() / ("thalweg-runs-" + std::to_string(::getpid()))) {}
    ~Runs() override { fs::remove_all(folder_); }
    fs::path run(const std::string& name, const std::string& config, const std::string& rounds,
                 const std::string& analysis = "") {
        const fs::path path = folder_ / name;
        fs::create_directories(path);
        core::write_atomically(path / "config.yaml", config);
        core::write_atomically(path / "rounds.jsonl", rounds);
        if (!analysis.empty()) core::write_atomically(path / "analysis.jsonl", analysis);
        return path;
    }
    static const Figure* figure(const Document& document, const std::string& name) {
        for (const auto& section : document.sections) {
            for (const auto& one : section.figures) {
                if (one.name == name) return &one;
            }
        }
        return nullptr;
    }
    fs::path folder_;
};

const std::string config = "name: x\nseed: 1\nserver:\n  rounds: 3\n  fusion: [{kind: mean}]\n";
const std::string rounds =
    R"({"round":1,"test":{"loss":2,"accuracy":0.5},"train":{"loss":1},"clients":[{"client":4,"samples":9,"loss":1,"steps":2,"seconds":0.1,"rank":0}]})"
    "\n"
    R"({"round":2,"train":{"loss":0.5}})"
    "\n"
    R"({"round":3,"test":{"loss":1,"accuracy":0.75},"train":{"loss":0.4}})"
    "\n";

TEST_F(Runs, CurvesSkipRoundsThatWereNotEvaluated) {
    const Document document = document_of(run("a", config, rounds));
    const Figure* accuracy = figure(document, "accuracy");
    ASSERT_NE(accuracy, nullptr);
    EXPECT_EQ(accuracy->series[0].x, (std::vector<double>{1, 3}));
    EXPECT_EQ(accuracy->series[0].y, (std::vector<double>{50, 75}));
    EXPECT_EQ(document.facts["test accuracy"], "75.00%");
    EXPECT_EQ(document.facts["rounds"], "3 of 3");
}

TEST_F(Runs, EveryEvaluationOfALongRunIsDrawn) {
    std::string lines;
    for (int round = 1; round <= 10000; ++round) {
        lines += "{\"round\":" + std::to_string(round);
        if (round % 10 == 0) lines += ",\"test\":{\"accuracy\":0.5,\"loss\":1}";
        lines += ",\"train\":{\"loss\":1}}\n";
    }
    const Document document = document_of(run("long", config, lines));
    const Figure *accuracy = figure(document, "accuracy"), *loss = figure(document, "loss");
    ASSERT_NE(accuracy, nullptr);
    EXPECT_EQ(accuracy->series[0].x.size(), 1000U);
    ASSERT_EQ(loss->series.size(), 2U);
    EXPECT_EQ(loss->series[0].x.size(), 1000U);
    // of 10,000 points every fifth, and the last
    EXPECT_EQ(loss->series[1].x.size(), 2001U);
    EXPECT_EQ(loss->series[1].x.back(), 10000);
}

TEST_F(Runs, ALossThatIsNoNumberIsAGap) {
    const Document document = document_of(run("gap", config,
                                              "{\"round\":1,\"test\":{\"loss\":2}}\n"
                                              "{\"round\":2,\"test\":{\"loss\":null}}\n"
                                              "{\"round\":3}\n"
                                              "{\"round\":4,\"test\":{\"loss\":1}}\n"));
    const Figure* loss = figure(document, "loss");
    ASSERT_NE(loss, nullptr);
    EXPECT_EQ(loss->series[0].x, (std::vector<double>{1, 2, 4}));
    EXPECT_FALSE(std::isfinite(loss->series[0].y[1]));
}

TEST_F(Runs, ClientsWithoutAnAccuracyAreLeftOutOfTheLadder) {
    const auto bars = [&](const std::string& name, const std::string& even) {
        std::string clients;
        for (int client = 0; client < 12; ++client)
            clients += (client == 0 ? "" : ",") + std::string("{\"client\":") + std::to_string(client) +
                       ",\"accuracy\":" + (client % 2 == 0 ? even : "null") + "}";
        const Document document =
            document_of(run(name, config, rounds,
                            "{\"round\":3,\"ladder\":{\"clients\":[" + clients +
                                "],\"steps\":[{\"name\":\"mean\",\"accuracy\":0.5}]}}\n"));
        return figure(document, "ladder")->series[0].y;
    };
    EXPECT_EQ(bars("some", "0.25"), (std::vector<double>{25, 25, 25, 50}));
    EXPECT_EQ(bars("none", "null"), (std::vector<double>{50}));
}

TEST_F(Runs, WhatClientsDidIsOfTheLastRoundThatSaysIt) {
    std::string analysis;
    for (const char* value : {"0.25", "0.5"})
        analysis += std::string("{\"round\":") + (value[3] == '5' ? "1" : "3") +
                    ",\"sign_consistency\":{\"by_client\":{\"0\":{\"w\":" + value +
                    "}}},\"ladder\":{\"clients\":[{\"client\":0,\"accuracy\":" + value + "}]}}\n";
    const Document document = document_of(run("c", config, rounds, analysis));
    EXPECT_EQ(figure(document, "signs-by-client")->grid->values[0], (std::vector<double>{50}));
    EXPECT_EQ(figure(document, "ladder")->series[0].y, (std::vector<double>{50}));
}

TEST_F(Runs, TheTraceOfTheHessianIsDrawn) {
    const Document document =
        document_of(run("h", config, rounds,
                        R"({"round":1,"hessian":{"eigenvalues":[3,1],"trace":{"value":7}}})"
                        "\n"));
    ASSERT_NE(figure(document, "hessian-trace"), nullptr);
    EXPECT_EQ(figure(document, "hessian-trace")->series[0].y, (std::vector<double>{7}));
    EXPECT_EQ(figure(document, "hessian")->series.size(), 2U);
}

TEST_F(Runs, ChosenPairsAreDrawnOneByOne) {
    const std::string analysis =
        R"({"round":1,"barrier":{"before":{"error":0.4},"after":{"error":0.1},"by_pair":{"0-1":{"before":{"error":0.5,"curve":{"error":[0,0.5,0]}},"after":{"error":0.2,"curve":{"error":[0,0.2,0]}}},"1-2":{"before":{"error":0.3,"curve":{"error":[0,0.3,0.2]}},"after":{"error":0,"curve":{"error":[0,0,0.2]}}}}}})"
        "\n"
        R"({"round":3,"barrier":{"before":{"error":0.2},"after":{"error":0.2},"by_pair":{"1-2":{"before":{"error":0.2,"curve":{"error":[0.1,null,0.2]}},"after":{"error":0.2}}}}})"
        "\n";
    const Document drawn = document_of(run("drawn", config, rounds, analysis));
    EXPECT_EQ(figure(drawn, "barrier-by-pair"), nullptr);  // pairs are others in every round
    const Document chosen =
        document_of(run("chosen", config + "analysis: {pairs: [0-1, 1-2]}\n", rounds, analysis));
    const Figure* pairs = figure(chosen, "barrier-by-pair");
    ASSERT_NE(pairs, nullptr);
    ASSERT_EQ(pairs->series.size(), 4U);
    EXPECT_EQ(pairs->series[2].name, "1-2, as sent");
    EXPECT_EQ(pairs->series[2].x, (std::vector<double>{1, 3}));
    EXPECT_EQ(pairs->series[2].y, (std::vector<double>{30, 20}));
    // The line of the last round; what was not finite is a gap.
    const Figure* line = figure(chosen, "between-clients-error");
    ASSERT_NE(line, nullptr);
    ASSERT_EQ(line->series.size(), 1U);
    EXPECT_EQ(line->series[0].x, (std::vector<double>{0, 0.5, 1}));
    EXPECT_EQ(line->series[0].y[0], 10);
    EXPECT_TRUE(std::isnan(line->series[0].y[1]));
}

TEST_F(Runs, LocalEnergyIsARiseAndSupportHasThreeDimensions) {
    const std::string sized =
        config + "analysis: {measures: [{kind: flatness, sigma: [0.1], every: 2, as: ''}, support]}\n";
    const Document document = document_of(run(
        "f", sized, rounds,
        R"({"round":1,"flatness":{"error":0.7,"points":[{"sigma":0.1,"energy":-0.02,"standard_error":0.01,"loss_rise":0.5}]},"support":{"fc1":{"weights":30,"outputs_covariance":4,"inputs_covariance":8}}})"
        "\n"));
    const Figure* energy = figure(document, "flatness");
    ASSERT_NE(energy, nullptr);
    EXPECT_EQ(energy->y.label, "rise of the error (points)");
    EXPECT_EQ(energy->series[0].y, (std::vector<double>{-2}));
    EXPECT_EQ(energy->series[0].high, (std::vector<double>{-1}));
    EXPECT_THAT(energy->caption, HasSubstr("sigma [0.1]."));
    EXPECT_EQ(figure(document, "flatness-loss")->series[0].y, (std::vector<double>{0.5}));
    ASSERT_EQ(figure(document, "support")->series.size(), 3U);
    EXPECT_EQ(figure(document, "support")->series[2].y, (std::vector<double>{8}));
}

TEST_F(Runs, EigenvaluesThatDidNotConvergeAreSaidToBeSo) {
    const Document document = document_of(run(
        "l", config, rounds,
        R"({"round":1,"hessian":{"eigenvalues":[3],"smallest":-1,"converged":false,"trace":{"value":7,"standard_error":2}}})"
        "\n"
        R"({"round":3,"hessian":{"eigenvalues":[4],"smallest":-2,"converged":true,"trace":{"value":8,"standard_error":1}}})"
        "\n"));
    const Figure* eigenvalues = figure(document, "hessian");
    EXPECT_THAT(eigenvalues->caption, HasSubstr("did not converge in 1 of 2 rounds"));
    EXPECT_EQ(eigenvalues->series.back().y, (std::vector<double>{-1, -2}));
    EXPECT_EQ(figure(document, "hessian-trace")->series[0].low, (std::vector<double>{5, 7}));
}

TEST_F(Runs, TheFirstAndTheLastSpectralDensityAreDrawn) {
    std::string analysis;
    for (const char* round : {"1", "2", "3"})
        analysis += std::string("{\"round\":") + round +
                    ",\"hessian\":{\"eigenvalues\":[3],\"density\":{\"grid\":[0,1],\"density\":[" + round +
                    ",null]}}}\n";
    const Document document = document_of(run("density", config, rounds, analysis));
    const Figure* density = figure(document, "hessian-density");
    ASSERT_NE(density, nullptr);
    ASSERT_EQ(density->series.size(), 2U);
    EXPECT_EQ(density->series[0].name, "round 1");
    EXPECT_EQ(density->series[1].name, "round 3");
    EXPECT_EQ(density->series[1].x, (std::vector<double>{0, 1}));
    EXPECT_EQ(density->series[1].y[0], 3);
    EXPECT_TRUE(std::isnan(density->series[1].y[1]));
}

TEST_F(Runs, MeasuresAreDrawnByTheirKindUnderTheirName) {
    const std::string named = config +
                              "analysis: {measures: [{kind: hessian, as: ''}, {kind: hessian, as: sharp}, "
                              "{kind: valley, as: wide}, {kind: ladder, as: steps}]}\n";
    const Document document = document_of(run(
        "as", named, rounds,
        R"({"round":1,"hessian":{"eigenvalues":[3]},"sharp":{"eigenvalues":[5]},"wide":{"lambdas":[-1,1],"loss":[2,3],"asymmetry":0.1,"asymmetry_interval":[0,0.2]},"steps":{"steps":[{"name":"mean","accuracy":0.5}]}})"
        "\n"
        R"({"round":2,"sharp":{"eigenvalues":[null]},"wide":{"asymmetry":null}})"
        "\n"
        R"({"round":3,"sharp":{"eigenvalues":[7]},"wide":{"asymmetry":0.2}})"
        "\n"));
    ASSERT_NE(figure(document, "hessian"), nullptr);
    ASSERT_NE(figure(document, "hessian-sharp"), nullptr);
    EXPECT_EQ(figure(document, "hessian-sharp")->title, "Eigenvalues of the Hessian (sharp)");
    ASSERT_NE(figure(document, "valley-loss-wide"), nullptr);
    EXPECT_EQ(figure(document, "valley-loss-wide")->series[0].y, (std::vector<double>{2, 3}));
    ASSERT_NE(figure(document, "ladder"), nullptr);
    // what was not finite is a gap
    for (const char* name : {"hessian-sharp", "valley-asymmetry-wide"}) {
        const auto& series = figure(document, name)->series[0];
        EXPECT_EQ(series.x, (std::vector<double>{1, 2, 3})) << name;
        EXPECT_FALSE(std::isfinite(series.y[1])) << name;
    }
}

TEST_F(Runs, NamesThatComeDownToOneFileAreNumbered) {
    const Document document = document_of(run(
        "alike", config, rounds,
        R"({"round":1,"a_b":{"c":1},"a-b":{"c":2},"A b":{"c":3},"accuracy":{"x":4},"a":{"b-c":5},"ü":{"ö":6}})"
        "\n"));
    for (const char* name : {"a-b-c", "a-b-c-2", "a-b-c-3", "a-b-c-4"})
        EXPECT_NE(figure(document, name), nullptr) << name;
    EXPECT_NO_THROW(write_report(document, folder_ / "alike"));
}

TEST_F(Runs, APlaneAboutTheGlobalModelIsDrawn) {
    const Document document = document_of(
        run("plane", config, rounds,
            R"({"round":1,"surface":{"x":[-1,0,1],"y":[0,2],"loss":[[1,2,3],[4,null,6]],"accuracy":[[1,1]]}})"
            "\n"));
    const Figure* plane = figure(document, "surface-loss");
    ASSERT_NE(plane, nullptr);
    EXPECT_EQ(plane->grid->values[0], (std::vector<double>{1, 2, 3}));
    EXPECT_THAT(plane->grid->contours, ::testing::ElementsAre(1.1, 1.2, 1.5, 2, 3, 6));
    EXPECT_TRUE(std::isnan(plane->grid->values[1][1]));
    EXPECT_EQ(figure(document, "surface-accuracy"), nullptr);  // not one value for each cell
}

TEST_F(Runs, MeasuresAreDrawnFromBothFiles) {
    const std::string analysis =
        R"({"round":1,"sign_consistency":{"client_global":0.6,"by_client":{"0":{"w":0.5},"7":{"w":0.75,"b":1}}},"novel":{"size":3,"layers":{"a":{"loss":1},"b":{"loss":2}}}})"
        "\n";
    const Document document = document_of(run("m", config, rounds, analysis));
    const Figure* map = figure(document, "signs-by-client");
    ASSERT_NE(map, nullptr);
    EXPECT_EQ(map->grid->column_names, (std::vector<std::string>{"0", "7"}));
    EXPECT_EQ(map->grid->row_names, (std::vector<std::string>{"w", "b"}));
    EXPECT_EQ(map->grid->values[0], (std::vector<double>{50, 75}));
    EXPECT_TRUE(std::isnan(map->grid->values[1][0]));
    const Figure* novel = figure(document, "novel-loss");
    ASSERT_NE(novel, nullptr);
    EXPECT_EQ(novel->series.size(), 2U);
    ASSERT_NE(figure(document, "novel-size"), nullptr);
}

TEST_F(Runs, BegunAndDamagedFolders) {
    const fs::path begun = run("begun", config, "");
    EXPECT_NO_THROW(write_report(document_of(begun), begun));
    EXPECT_THROW(document_of(folder_ / "none"), core::UsageError);
    fs::create_directories(folder_ / "empty");
    EXPECT_THROW(document_of(folder_ / "empty"), core::UsageError);
    const auto complaint = [&](const fs::path& path) {
        try {
            document_of(path);
        } catch (const core::Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_THAT(complaint(run("torn", config, "{\"round\":1}\nnonsense\n{\"round\":2}\n")),
                HasSubstr("rounds.jsonl:2"));
    EXPECT_THAT(complaint(run("nameless", config, "{\"test\":{}}\n")), HasSubstr("rounds.jsonl"));
    EXPECT_THAT(complaint(run("yaml", "a: [", "")), HasSubstr("config.yaml"));
    // numbers of the wrong type are values that are not there
    EXPECT_EQ(complaint(run("types", config,
                            "{\"round\":1,\"test\":\"x\",\"clients\":3,\"fusion\":{\"stages\":[1]}}\n")),
              "");
    const fs::path result = folder_ / "result";
    fs::create_directories(result);
    const std::string section = R"({"kind": "study", "title": "t", "sections": [{"title": "s", )";
    for (const std::string& text :
         {std::string("{\"kind\": \"study\""), section + R"("figures": [{"name": "../x", "title": "y"}]}]})",
          section + R"("figures": [{"name": "x", "series": [{"name": "s", "x": [1], "y": []}]}]}]})",
          section + R"("tables": [{"name": "t", "title": "t", "columns": ["a"], "rows": [[]]}]}]})",
          section + R"("figures": [{"name": "x"}, {"name": "x"}]}]})"}) {
        core::write_atomically(result / "result.json", text);
        EXPECT_THAT(complaint(result), HasSubstr("result.json")) << text;
    }
}

TEST_F(Runs, ARunIsShownBeforeAnOlderResult) {
    const fs::path path = run("both", config, rounds);
    core::write_atomically(path / "result.json", R"({"kind": "lmc", "title": "t"})");
    EXPECT_EQ(document_of(path).kind, "run");
    fs::remove(path / "rounds.jsonl");
    EXPECT_EQ(document_of(path).kind, "lmc");
    EXPECT_EQ(run_document(path).kind, "run");
}

TEST_F(Runs, ATokenIsNotPassedOn) {
    const Document document = document_of(run("t", config + "record: {token: hunter2hunter2}\n", rounds));
    EXPECT_EQ(to_json(document).dump().find("hunter2"), std::string::npos);
}

TEST_F(Runs, SideBySide) {
    const fs::path a = run("a", config, rounds),
                   b = run("b", "name: y\nseed: 2\nserver:\n  rounds: 3\n", rounds);
    const Document document = side_by_side({a, b});
    const TextTable& table = document.sections[1].tables[0];
    EXPECT_EQ(table.columns, (std::vector<std::string>{"setting", "x", "y"}));
    EXPECT_THAT(table.rows, ::testing::Contains(std::vector<std::string>{"seed", "1", "2"}));
    EXPECT_THAT(table.rows, ::testing::Not(::testing::Contains(::testing::Contains("server.rounds"))));
    ASSERT_NE(figure(document, "accuracy"), nullptr);
    EXPECT_EQ(figure(document, "accuracy")->series.size(), 2U);
    // two of one name are told apart by their folders
    EXPECT_EQ(figure(side_by_side({a, run("c", config, rounds)}), "accuracy")->series[1].name, "c");
    EXPECT_THROW(side_by_side({a}), core::UsageError);
    EXPECT_THROW(side_by_side({a, a}), core::UsageError);
    EXPECT_THROW(side_by_side({a, folder_ / "none"}), core::UsageError);
}

TEST_F(Runs, SideBySideStandsEveryNumberThatTheRunsShare) {
    const std::string measures =
        "analysis: {measures: [hessian, {kind: hessian, as: sharp}, {kind: flatness, as: FLAT}]}\n";
    const auto config_of = [&](const std::string& name, const std::string& flat) {
        std::string text = "name: " + name + "\n" + measures;
        return text.replace(text.find("FLAT"), 4, flat);
    };
    const fs::path a =
        run("a", config_of("x", "flat"), rounds,
            R"({"round":1,"hessian":{"eigenvalues":[3],"trace":{"value":7,"standard_error":1},)"
            R"("parameters":9},"sharp":{"eigenvalues":[5]},"flat":{"points":[{"sigma":0.1,)"
            R"("energy":0.25}]},"variance_ratio":{"after":{"l":0.5}},"surface":{"x":[1]}})"
            "\n"
            R"({"round":3,"hessian":{"eigenvalues":[null]},"novel":{"size":2}})"
            "\n");
    const fs::path b = run("b", config_of("y", "wide"), rounds,
                           R"({"round":1,"sharp":{"eigenvalues":[6]},"hessian":{"eigenvalues":[4,2]},)"
                           R"("wide":{"points":[{"sigma":0.3,"energy":0.75},{"sigma":0.1,"energy":0.5}]},)"
                           R"("variance_ratio":{"after":{"l":0.25}},"surface":{"x":[1]}})"
                           "\n");
    const Document document = side_by_side({a, b});
    const auto values = [&](const std::string& name) {
        std::vector<double> found;
        if (const Figure* one = figure(document, name)) {
            for (const auto& series : one->series) found.push_back(series.y[0]);
        }
        return found;
    };
    EXPECT_EQ(values("hessian-eigenvalues-1"), (std::vector<double>{3, 4}));
    EXPECT_EQ(values("hessian-eigenvalues-1-sharp"), (std::vector<double>{5, 6}));
    EXPECT_EQ(values("flatness-points-0-1-energy-flat"), (std::vector<double>{25, 50}));
    EXPECT_EQ(values("variance-ratio-after-l"), (std::vector<double>{0.5, 0.25}));
    const auto& lost = figure(document, "hessian-eigenvalues-1")->series[0];  // a gap
    EXPECT_EQ(lost.x, (std::vector<double>{1, 3}));
    EXPECT_FALSE(std::isfinite(lost.y[1]));
    const std::string said = document.sections.back().paragraphs.at(0);
    for (const char* text : {"novel, which x alone measured", "2 numbers of hessian that one run alone has",
                             "surface, which is no number of a round"})
        EXPECT_THAT(said, HasSubstr(text));
}

TEST_F(Runs, SideBySideStandSomeLayersOfManyTheFirstAndTheLastAmongThem) {
    std::string before, after;
    for (int layer = 0; layer < 30; ++layer) {
        const std::string entry = (layer == 0 ? "\"l" : ",\"l") + std::to_string(layer) + "\":0.5";
        before += entry;
        after += entry;
    }
    std::string line = R"({"round":1,"variance_ratio":{"before":{)";
    line += before + R"(},"after":{)" + after + "}}}\n";
    const Document document = side_by_side({run("a", config, rounds, line), run("b", config, rounds, line)});
    EXPECT_EQ(document.sections.back().figures.size(), 12U);
    for (const char* name : {"l0", "l29"}) {
        EXPECT_NE(figure(document, std::string("variance-ratio-before-") + name), nullptr);
        EXPECT_NE(figure(document, std::string("variance-ratio-after-") + name), nullptr);
    }
    EXPECT_THAT(document.sections.back().paragraphs.at(0),
                HasSubstr("48 of the 60 numbers of variance ratio"));
}

}  // namespace
}  // namespace thalweg::report::run_test
