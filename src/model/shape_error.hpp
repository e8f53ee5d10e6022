#pragma once

#include "thalweg/core/error.hpp"

namespace thalweg::model {

/// Thrown by GraphBuilder, which does not know where the model was asked for; build_model adds the place.
class ShapeError : public core::UsageError {
  public:
    using core::UsageError::UsageError;
};

}  // namespace thalweg::model
