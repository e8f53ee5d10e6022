#pragma once

// Everything a run writes and says: its folder, tables, progress, warnings.
#include "thalweg/record/log.hpp"
#include "thalweg/record/progress.hpp"
#include "thalweg/record/run_folder.hpp"
#include "thalweg/record/stopwatch.hpp"
#include "thalweg/record/table.hpp"
