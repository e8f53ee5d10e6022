#include "runtime.hpp"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <torch/version.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>

#include "thalweg/version.hpp"

namespace thalweg::app {

namespace {

template <class Function>
Function find_symbol(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

void use_one_thread() {
    at::set_num_threads(1);
    if (const auto set = find_symbol<void (*)(int)>("omp_set_num_threads")) set(1);
    if (const auto set = find_symbol<void (*)(int)>("openblas_set_num_threads")) set(1);
}

void keep_freed_memory() {
    mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that the library allows
    mallopt(M_TRIM_THRESHOLD, -1);
}

std::string blas_library() {
    void* sgemm = dlsym(RTLD_DEFAULT, "sgemm_");
    Dl_info info{};
    if (sgemm == nullptr || dladdr(sgemm, &info) == 0 || info.dli_fname == nullptr) return "unknown";
    std::error_code error;
    const auto resolved = std::filesystem::canonical(info.dli_fname, error);
    return error ? std::string(info.dli_fname) : resolved.string();
}

std::string blas_warning() {
    const std::string library = blas_library();
    // Debian's alternatives: the reference implementation lies in …/blas/libblas.so.3.
    if (library.find("/blas/libblas") == std::string::npos) return "";
    return "matrix products go to the reference BLAS (" + library +
           "), about 20 times slower than OpenBLAS; fix: apt install libopenblas0-openmp";
}

void say_when_interrupted(const std::string& text) {
    const std::string launcher = "/proc/" + std::to_string(::getppid());
    std::string name;
    std::getline(std::ifstream(launcher + "/comm"), name);
    int file = name == "prterun"
                   ? ::open((launcher + "/fd/2").c_str(), O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC)
                   : -1;
    if (file < 0) file = STDERR_FILENO;
    [[maybe_unused]] const auto written =
        ::write(file, text.data(), text.size());  // there is nobody left to tell
}

record::Json manifest(const backend::Backend& backend, int ranks) {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    char when[32] = "";
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    return {{"thalweg", THALWEG_VERSION},
            {"libtorch", TORCH_VERSION},
            {"compiler", __VERSION__},
            {"blas", blas_library()},
            {"backend", backend.description()},
            {"ranks", ranks},
            {"threads", at::get_num_threads()},
            {"host", host},
            {"started", when}};
}

}  // namespace thalweg::app
