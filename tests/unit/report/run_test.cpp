#include "thalweg/report/run.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"

namespace thalweg::report {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Runs : public testing::Test {
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
    EXPECT_EQ(figure(document, "hessian-sharp")->title, "Largest eigenvalues of the Hessian (sharp)");
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
    EXPECT_THAT(table.rows, testing::Contains(std::vector<std::string>{"seed", "1", "2"}));
    EXPECT_THAT(table.rows, testing::Not(testing::Contains(testing::Contains("server.rounds"))));
    ASSERT_NE(figure(document, "accuracy"), nullptr);
    EXPECT_EQ(figure(document, "accuracy")->series.size(), 2U);
    // two of one name are told apart by their folders
    EXPECT_EQ(figure(side_by_side({a, run("c", config, rounds)}), "accuracy")->series[1].name, "c");
    EXPECT_THROW(side_by_side({a}), core::UsageError);
    EXPECT_THROW(side_by_side({a, a}), core::UsageError);
    EXPECT_THROW(side_by_side({a, folder_ / "none"}), core::UsageError);
}

}  // namespace
}  // namespace thalweg::report
