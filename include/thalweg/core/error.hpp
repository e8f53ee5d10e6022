#pragma once

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>

namespace thalweg::core {

/// Base of every error that is meant for the person at the terminal. The text is one paragraph that says what is
/// wrong, where (file, line, key), what is allowed and what to do.
class Error : public std::runtime_error {
  public:
    Error(const std::string& message, int exit_code) : std::runtime_error(message), exit_code_(exit_code) {}
    /// What the program returns to the shell: 2 wrong usage or configuration, 1 failed while running, 130 interrupted.
    int exit_code() const { return exit_code_; }

  private:
    int exit_code_;
};

/// Wrong command line or configuration: nothing has been computed yet (exit code 2).
class UsageError : public Error {
  public:
    explicit UsageError(const std::string& message) : Error(message, 2) {}
};

/// Something failed while running: a damaged file, a diverged client, a full disk (exit code 1).
class RunError : public Error {
  public:
    explicit RunError(const std::string& message) : Error(message, 1) {}
};

/// SIGINT or SIGTERM arrived (exit code 130).
class Interrupted : public Error {
  public:
    explicit Interrupted(const std::string& message = "interrupted") : Error(message, 130) {}
};

/// What an exception that is none of ours says, without the back trace LibTorch appends: one paragraph.
inline std::string first_paragraph(const std::string& what) {
    std::string text = what.substr(std::min(what.find_first_not_of('\n'), what.size()));
    for (const char* mark : {"\nException raised from", "\nframe #", " (Exception raised from", "\n\n"}) {
        text = text.substr(0, text.find(mark));
    }
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

/// An exception that is none of ours as one for the person at the terminal: memory that ran out, or a mistake in the
/// program.
inline RunError as_error(const std::exception& error) {
    const std::string text = first_paragraph(error.what());
    const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                        text.find("can't allocate memory") != std::string::npos;
    if (memory)
        return RunError("there is not enough memory (" + text +
                        "); choose a smaller model, batch or data set");
    return RunError("internal error: " + text +
                    ". Please report it with the command line and the configuration");
}

}  // namespace thalweg::core
