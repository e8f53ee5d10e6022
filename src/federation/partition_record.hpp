#pragma once

#include "thalweg/data/partition.hpp"
#include "thalweg/record/record.hpp"

namespace thalweg::federation {

/// partition.json of a run: how many samples of each label the first clients have, and how many clients there are. At most
/// 200 clients: a record must not grow with millions of virtual ones.
record::Json partition_record(const data::FederatedData& data);

}  // namespace thalweg::federation
