#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace thalweg::study {

/// A folder's path that is its own, and removed with all that is in it.
struct StudyFolder {
    explicit StudyFolder(const std::string& name)
        : path(std::filesystem::temp_directory_path() /
               ("thalweg-study-" + name + "-" + std::to_string(getpid()))) {
        std::filesystem::remove_all(path);
    }
    ~StudyFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    StudyFolder(const StudyFolder&) = delete;
    StudyFolder& operator=(const StudyFolder&) = delete;

    const std::filesystem::path path;
};

}  // namespace thalweg::study
