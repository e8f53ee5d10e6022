#include "thalweg/record/table.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

namespace thalweg::record::table_test {
namespace {

TEST(Table, PadsTextAndRightAlignsNumbers) {
    Table table({"model", "accuracy", "loss"});
    table.row({"client 0", "86.12%", "0.4"});
    table.row({"mean", "9.00%", "−12.5"});
    table.rule();
    table.row({"merged"});
    EXPECT_EQ(table.text(),
              "model     accuracy   loss\n"
              "─────────────────────────\n"
              "client 0    86.12%    0.4\n"
              "mean         9.00%  −12.5\n"
              "─────────────────────────\n"
              "merged\n");
}

TEST(Table, CountsCodePointsNotBytes) {
    Table table({"λ", "Größe"});
    table.row({"βγδ", "ä"});
    EXPECT_EQ(table.text(),
              "λ    Größe\n"
              "──────────\n"
              "βγδ  ä\n");
    EXPECT_EQ(text_width("Größe · λ"), 9u);
}

TEST(Table, AWordAmongNumbersKeepsTheColumnToTheLeft) {
    Table table({"v"});
    table.row({"10"});
    table.row({"none"});
    EXPECT_EQ(table.text(), "v\n────\n10\nnone\n");
}

TEST(Table, DashesStandForMissingNumbers) {
    Table table({"value"});
    table.row({"1.25"});
    table.row({"–"});
    table.row({""});
    EXPECT_EQ(table.text(), "value\n─────\n 1.25\n    –\n\n");
}

TEST(Table, RefusesTooManyCells) {
    Table table({"a"});
    EXPECT_THROW(table.row({"1", "2"}), std::logic_error);
    EXPECT_THROW(Table({}), std::logic_error);
}

TEST(Text, PercentAndNumber) {
    EXPECT_EQ(percent(0.8612), "86.12%");
    EXPECT_EQ(percent(0.5, 0), "50%");
    EXPECT_EQ(percent(-0.0123, 1), "-1.2%");
    EXPECT_EQ(number(0.0851234), "0.08512");
    EXPECT_EQ(number(1.5), "1.5");
    EXPECT_EQ(number(0), "0");
    EXPECT_EQ(number(1.23456e-5), "1.235e-05");
    EXPECT_EQ(number(9999.4), "9999");
    EXPECT_EQ(number(9999.6), "10000");
    EXPECT_EQ(number(-199210), "-199210");
    EXPECT_EQ(number(3e9), "3e+09");
    EXPECT_EQ(number(std::numeric_limits<double>::quiet_NaN()), "nan");
}

}  // namespace
}  // namespace thalweg::record::table_test
