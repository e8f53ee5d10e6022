#pragma once

#include <string>

/// The test programs' own plug-ins, registered in registry_test.cpp: fruits `apple` (colour, weight) and `pear` (ripe,
/// required), `needy` `one` with a required number.
namespace thalweg::testing {

/// What the fruits' factories make.
struct Fruit {
    std::string text;
};

}  // namespace thalweg::testing
