#include "thalweg/report/figure.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "../../../src/report/parts.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::report::figure_test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
const char* const nasty =
    "it's \"nasty\" `touch pwned` $(touch pwned) \\ @x %s {/Bold y}_1^2\nline; system('touch pwned') "
    "</script><b>&";

class Figures : public ::testing::Test {
  protected:
    Figures() : folder_(fs::temp_directory_path() / ("thalweg-report-" + std::to_string(::getpid()))) {
        fs::create_directories(folder_);
    }
    ~Figures() override { fs::remove_all(folder_); }
    std::string text(const std::string& name) const { return core::read_file(folder_ / name); }
    fs::path folder_;
};

Figure curve() {
    return {.name = "curve",
            .title = "A curve",
            .caption = "measured",
            .x = {.label = "λ", .low = 0.0},
            .y = {.label = "loss (nats)", .logarithmic = true},
            .series = {{.name = "a, \"b\"", .x = {0, 0.5, 1}, .y = {1, nan, 0.1}, .note = "5 models"},
                       {.name = "band",
                        .x = {0, 1},
                        .y = {2, 3},
                        .low = {1, 2},
                        .high = {3, 4},
                        .style = Series::Style::dashed}}};
}

Figure heat() {
    return {.name = "heat",
            .title = "A heat map",
            .grid = Grid{.row_names = {"fc1", "fc2"},
                         .column_names = {"0", "1", "2"},
                         .values = {{1, 2, 3}, {4, nan, 6}},
                         .label = "share (%)"}};
}

Figure surface() {
    Figure figure{.name = "surface", .title = "A surface", .x = {.label = "u"}, .y = {.label = "v"}};
    Grid grid{.rows = {0, 1, 2},
              .columns = {-1, 0, 1, 2},
              .label = "loss (nats)",
              .contours = {1, 2},
              .marks = {{"A", 0, 1}}};
    for (const double y : grid.rows) {
        grid.values.emplace_back();
        for (const double x : grid.columns) grid.values.back().push_back(x * x + y * y);
    }
    figure.grid = grid;
    return figure;
}

Figure bars() {
    return {.name = "bars",
            .title = "Bars",
            .categories = {"one", "two"},
            .series = {{.name = "s",
                        .x = {0, 1},
                        .y = {1, 2},
                        .low = {0.5, 1},
                        .high = {1.5, 3},
                        .style = Series::Style::bars},
                       {.name = "t", .x = {0, 1}, .y = {2, 1}, .style = Series::Style::points}}};
}

TEST(FigureJson, LosesNothing) {
    for (const Figure& figure : {curve(), heat(), surface(), bars()}) {
        const Json json = to_json(figure);
        EXPECT_EQ(to_json(figure_from_json(Json::parse(json.dump()))), json) << figure.name;
    }
    const Figure read = figure_from_json(to_json(curve()));
    EXPECT_TRUE(std::isnan(read.series[0].y[1]));
    EXPECT_TRUE(read.y.logarithmic);
    EXPECT_EQ(read.x.low, 0.0);
    EXPECT_FALSE(read.x.high.has_value());
    EXPECT_EQ(read.series[1].style, Series::Style::dashed);
    EXPECT_EQ(read.series[1].high, (std::vector<double>{3, 4}));
    EXPECT_EQ(figure_from_json(to_json(surface())).grid->marks[0].name, "A");
}

TEST(FigureJson, InfinityIsNoValue) {
    Figure figure = curve();
    figure.series[0].y[0] = std::numeric_limits<double>::infinity();
    EXPECT_TRUE(std::isnan(figure_from_json(to_json(figure)).series[0].y[0]));
}

TEST(DocumentJson, LosesNothing) {
    Document document{
        .kind = "study", .title = nasty, .summary = "found", .facts = {{"seed", 1}, {"time", "2 s"}}};
    document.sections.push_back(
        {.title = "one",
         .paragraphs = {"a", "b"},
         .figures = {curve(), heat()},
         .tables = {{.name = "t", .title = "T", .columns = {"a", "b"}, .rows = {{"1", "2"}}}},
         .code = "x: 1\n",
         .folded = true});
    const Json json = to_json(document);
    EXPECT_EQ(to_json(document_from_json(Json::parse(json.dump()))), json);
}

TEST(DocumentJson, RefusesWhatIsNone) {
    const char* damaged[] = {
        "[]",
        R"({"title": "x"})",
        R"({"kind": 1, "title": "x"})",
        R"({"kind": "k", "title": "x", "facts": 3})",
        R"({"kind": "k", "title": "x", "sections": {}})",
        R"({"kind": "k", "title": "x", "sections": [3]})",
        R"({"kind": "k", "title": "x", "sections": [{"figures": [{}]}]})",
        R"({"kind": "k", "title": "x", "sections": [{"figures": [{"name": "n", "series": [{"name": "s", "x": ["a"], "y": [1]}]}]}]})",
        R"({"kind": "k", "title": "x", "sections": [{"figures": [{"name": "n", "grid": {"values": [1]}}]}]})"};
    for (const char* text : damaged) {
        EXPECT_THROW(document_from_json(Json::parse(text)), core::RunError) << text;
    }
}

TEST_F(Figures, CsvHoldsEveryPoint) {
    write_figure(curve(), folder_);
    EXPECT_EQ(text("curve.csv"),
              "# a, \"b\": 5 models\n"
              "number,x,y,low,high,series\n"
              "0,0,1,,,\"a, \"\"b\"\"\"\n0,0.5,NaN,,,\"a, \"\"b\"\"\"\n0,1,0.1,,,\"a, \"\"b\"\"\"\n"
              "1,0,2,1,3,\"band\"\n1,1,3,2,4,\"band\"\n");
    write_figure(heat(), folder_);
    EXPECT_THAT(text("heat.csv"), HasSubstr("1,1,NaN,\"fc2\",\"1\"\n1,2,6,\"fc2\",\"2\"\n"));
    write_figure(surface(), folder_);
    EXPECT_THAT(text("surface.csv"), HasSubstr("0,2,4\n\n1,-1,2\n"));
}

TEST_F(Figures, CsvNamesTheCategoryOfEachPoint) {
    write_figure(bars(), folder_);
    EXPECT_EQ(text("bars.csv"),
              "number,x,y,low,high,series,category\n"
              "0,0,1,0.5,1.5,\"s\",\"one\"\n0,1,2,1,3,\"s\",\"two\"\n"
              "1,0,2,,,\"t\",\"one\"\n1,1,1,,,\"t\",\"two\"\n");
    for (const double x : {-0.12, 0.82, 2.0, nan}) {
        Figure beside = bars();
        beside.series[1].x[1] = x;
        EXPECT_THROW(write_figure(beside, folder_), std::logic_error) << x;
    }
}

TEST_F(Figures, StackedBarsStandOnEachOther) {
    Figure figure{.name = "stack", .title = "s", .stacked = true};
    figure.series.push_back({.name = "a", .x = {1, 2}, .y = {1, 2}, .style = Series::Style::bars});
    figure.series.push_back({.name = "b", .x = {2, 1}, .y = {10, nan}, .style = Series::Style::bars});
    figure.series.push_back({.name = "c", .x = {1, 2}, .y = {5, 5}, .style = Series::Style::bars});
    write_figure(figure, folder_);
    EXPECT_THAT(text("stack.csv"),
                HasSubstr("1,2,10,2,12,\"b\"\n1,1,NaN,1,1,\"b\"\n2,1,5,1,6,\"c\"\n2,2,5,12,17,\"c\"\n"));
}

TEST_F(Figures, TableCellsAreQuotedWhereNeeded) {
    write_table({.name = "t", .columns = {"a", "b"}, .rows = {{"1", "x, \"y\""}, {"#2", "−3"}}}, folder_);
    EXPECT_EQ(text("t.csv"), "a,b\n1,\"x, \"\"y\"\"\"\n\"#2\",−3\n");
}

TEST_F(Figures, NoTextBecomesACommand) {
    Figure figure = bars();
    figure.title = figure.x.label = figure.y.label = figure.series[0].name = figure.categories[0] = nasty;
    figure.series[0].note = nasty;
    Figure marked = surface();
    marked.grid->label = marked.grid->marks[0].name = marked.title = nasty;
    Figure named = heat();
    named.grid->row_names[0] = named.grid->column_names[1] = named.grid->label = nasty;
    for (const Figure& one : {figure, marked, named}) {
        const bool drawn = write_figure(one, folder_);
        EXPECT_FALSE(fs::exists(folder_ / "pwned")) << one.name;
        EXPECT_FALSE(fs::exists("pwned")) << one.name;
        if (!drawn) continue;
        const std::string svg = text(one.name + ".svg");
        EXPECT_THAT(svg, Not(HasSubstr("<b>"))) << one.name;
        EXPECT_THAT(svg, Not(HasSubstr("</script>"))) << one.name;
    }
    // a quote in the text is doubled, so that every line of the script has an even number of them
    const std::string script = text("bars.gp");
    EXPECT_THAT(script, HasSubstr("it''s"));
    std::size_t quotes = 0;
    for (const char c : script) {
        quotes += c == '\'' ? 1 : 0;
        if (c == '\n') {
            EXPECT_EQ(quotes % 2, 0U);
        }
    }
}

TEST_F(Figures, SvgIsDrawnWhereGnuplotIs) {
    if (std::system("command -v gnuplot > /dev/null") != 0) GTEST_SKIP() << "gnuplot is not installed";
    Figure empty = curve();
    empty.name = "empty";
    for (auto& series : empty.series) series.y.assign(series.y.size(), nan);
    Figure one = bars();
    one.name = "one-round";
    one.categories.clear();
    one.stacked = true;
    one.series = {{.name = "s", .x = {1}, .y = {2}, .style = Series::Style::bars}};
    Figure flat = surface();
    flat.name = "flat";
    for (auto& row : flat.grid->values) row.assign(row.size(), 1.0);
    for (const Figure& figure : {curve(), heat(), surface(), bars(), empty, one, flat}) {
        EXPECT_TRUE(write_figure(figure, folder_)) << figure.name;
        EXPECT_THAT(text(figure.name + ".svg"), HasSubstr("</svg>")) << figure.name;
    }
    EXPECT_THAT(text("heat.svg"), HasSubstr("fc2"));
    EXPECT_THAT(text("curve.svg"), HasSubstr("loss (nats)"));
}

TEST_F(Figures, NoNameMovesWhatIsDrawn) {
    if (std::system("command -v gnuplot > /dev/null") != 0) GTEST_SKIP() << "gnuplot is not installed";
    const auto drawn = [&](const std::string& name) {
        Figure figure{.name = "moved", .title = "t", .categories = {name, "b"}};
        figure.series.push_back({.name = name, .x = {0, 1}, .y = {1, 3}});
        EXPECT_TRUE(write_figure(figure, folder_));
        std::vector<std::string> paths;
        std::istringstream lines(text("moved.svg"));
        for (std::string line; std::getline(lines, line);) {
            if (line.find("<path") != std::string::npos) paths.push_back(line);
        }
        return paths;
    };
    EXPECT_EQ(drawn("a,'b',c"), drawn("a\",5,\""));
}

TEST_F(Figures, WithoutGnuplotTheDataStand) {
    const std::string path = std::getenv("PATH");
    ::setenv("PATH", "/nowhere", 1);
    EXPECT_FALSE(write_figure(curve(), folder_));
    ::setenv("PATH", path.c_str(), 1);
    EXPECT_TRUE(fs::exists(folder_ / "curve.csv"));
    EXPECT_TRUE(fs::exists(folder_ / "curve.gp"));
    EXPECT_FALSE(fs::exists(folder_ / "curve.svg"));
}

/// A program called gnuplot, first on the PATH for as long as this lives.
class FakeGnuplot {
  public:
    FakeGnuplot(const fs::path& folder, const std::string& body) : path_(std::getenv("PATH")) {
        fs::create_directories(folder);
        std::ofstream(folder / "gnuplot") << "#!/bin/sh\n" << body << "\n";
        fs::permissions(folder / "gnuplot", fs::perms::owner_all);
        ::setenv("PATH", (folder.string() + ":" + path_).c_str(), 1);
    }
    ~FakeGnuplot() { ::setenv("PATH", path_.c_str(), 1); }

  private:
    std::string path_;
};

TEST_F(Figures, AnInterruptEndsGnuplot) {
    const FakeGnuplot fake(folder_ / "bin", "echo $$ > pid; exec sleep 50");
    std::thread interrupt([&] {
        while (!fs::exists(folder_ / "pid") || fs::is_empty(folder_ / "pid"))
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        core::request_interrupt();
    });
    EXPECT_THROW(write_figure(curve(), folder_), core::Interrupted);
    interrupt.join();
    core::clear_interrupt();
    EXPECT_NE(::kill(std::stoi(text("pid")), 0), 0) << "gnuplot is still there";
    EXPECT_FALSE(fs::exists(folder_ / "curve.svg"));
}

TEST_F(Figures, GnuplotThatDoesNotEndIsTriedOnce) {
    const FakeGnuplot fake(folder_ / "bin", "echo >> starts; exec sleep 50");
    Gnuplot gnuplot;
    EXPECT_THAT(gnuplot.run(folder_, "a.gp", 1), HasSubstr("stopped after"));
    EXPECT_THAT(gnuplot.run(folder_, "b.gp", 1), HasSubstr("a.gp"));
    EXPECT_EQ(text("starts"), "\n");
}

TEST_F(Figures, ContradictionsAreMistakes) {
    const auto refused = [&](auto change) {
        Figure figure = curve();
        change(figure);
        EXPECT_THROW(write_figure(figure, folder_), std::logic_error);
    };
    refused([](Figure& f) { f.name = "../escape"; });
    refused([](Figure& f) { f.name = ""; });
    refused([](Figure& f) { f.name = "-d"; });
    refused([](Figure& f) { f.series[0].x.pop_back(); });
    refused([](Figure& f) { f.series[1].low.pop_back(); });
    refused([](Figure& f) { f.stacked = true; });
    refused([](Figure& f) { f.grid = heat().grid; });
    refused([](Figure& f) {
        f = heat();
        f.grid->values[1].pop_back();
    });
    EXPECT_THROW(write_table({.name = "t", .columns = {"a"}, .rows = {{"1", "2"}}}, folder_),
                 std::logic_error);
}

TEST_F(Figures, NothingInTheDataEndsTheScriptElement) {
    Document document{.kind = "study", .title = nasty, .facts = {{nasty, nasty}}};
    document.sections.push_back({.title = "<!--<script>", .paragraphs = {nasty}, .figures = {curve()}});
    write_report(document, folder_);
    const std::string page = text("report.html");
    const std::size_t begin = page.find("id=\"data\">") + 10;
    const std::string data = page.substr(begin, page.find("</script>", begin) - begin);
    EXPECT_THAT(data, Not(HasSubstr("<")));
    Json json = Json::parse(data);
    EXPECT_EQ(json["title"], nasty);
    EXPECT_EQ(json["sections"][0]["title"], "<!--<script>");
    // the title stands in the page's head and heading, too
    EXPECT_THAT(page, Not(HasSubstr("</script><b>")));
    EXPECT_THAT(page, HasSubstr("Chart.js v"));
    EXPECT_THAT(page, Not(HasSubstr("@@")));
}

TEST_F(Figures, TwoOfOneNameAreAMistake) {
    Document document{.kind = "study", .title = "t"};
    document.sections = {{.title = "a", .figures = {curve()}}, {.title = "b", .figures = {curve()}}};
    EXPECT_THROW(write_report(document, folder_), std::logic_error);
}

}  // namespace
}  // namespace thalweg::report::figure_test
