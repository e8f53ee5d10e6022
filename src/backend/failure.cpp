#include "failure.hpp"

#include "thalweg/core/error.hpp"

namespace thalweg::backend {

Failure describe(const std::exception_ptr& error) {
    using Class = Failure::Class;
    try {
        std::rethrow_exception(error);
    } catch (const core::Interrupted& e) {
        return {Class::interrupted, e.exit_code(), e.what()};
    } catch (const core::UsageError& e) {
        return {Class::usage, e.exit_code(), e.what()};
    } catch (const core::RunError& e) {
        return {Class::run, e.exit_code(), e.what()};
    } catch (const core::Error& e) {
        return {Class::other, e.exit_code(), e.what()};
    } catch (const std::exception& e) {
        return {Class::run, 1, core::as_error(e).what()};
    } catch (...) {
        return {Class::run, 1, "internal error: an exception of unknown type"};
    }
}

void raise(const Failure& failure) {
    switch (failure.kind) {
        case Failure::Class::interrupted:
            throw core::Interrupted(failure.message);
        case Failure::Class::usage:
            throw core::UsageError(failure.message);
        case Failure::Class::run:
            throw core::RunError(failure.message);
        case Failure::Class::other:
            break;
    }
    throw core::Error(failure.message, failure.exit_code);
}

}  // namespace thalweg::backend
