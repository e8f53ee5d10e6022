#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>

#include "parts.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/stopwatch.hpp"

extern char** environ;

namespace thalweg::report {

namespace {

struct Pipe {
    int ends[2] = {-1, -1};
    Pipe() {
        if (::pipe2(ends, O_CLOEXEC) != 0) ends[0] = ends[1] = -1;
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        for (int i : {0, 1}) close(i);
    }
    void close(int end) {
        if (ends[end] >= 0) ::close(ends[end]);
        ends[end] = -1;
    }
};

/// Starts `gnuplot -d script` in `folder`; what it says goes to the pipe. 0, or the system's error.
int start(const std::filesystem::path& folder, const std::string& script, const Pipe& pipe, pid_t& child) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pipe.ends[1], 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);  // sockets of MPI and of the live page among them
    // Signals that this program handles or blocks are the child's at their defaults; a group of its own keeps a Ctrl-C
    // for this program alone, which then ends the child.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::string program = "gnuplot", defaults = "-d",
                file = script;  // -d: nobody's ~/.gnuplot changes a figure
    char* arguments[] = {program.data(), defaults.data(), file.data(), nullptr};
    const int error = ::posix_spawnp(&child, "gnuplot", &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/// What comes through `fd` until it is closed (at most 4 kB of it); false when `seconds` are over or a Ctrl-C came first.
bool read_until(int fd, double seconds, std::string& text) {
    const record::Stopwatch watch;
    for (;;) {
        const double left = seconds - watch.seconds();
        if (left <= 0 || core::interrupt_requested()) return false;
        pollfd waiting{fd, POLLIN, 0};
        const int ready = ::poll(&waiting, 1, 100);  // slices: another thread may take the signal
        if (ready < 0 && errno != EINTR) return false;
        if (ready <= 0) continue;
        char buffer[1024];
        const ssize_t count = ::read(fd, buffer, sizeof buffer);
        if (count == 0) return true;
        if (count > 0 && text.size() < 4096) text.append(buffer, static_cast<std::size_t>(count));
        if (count < 0 && errno != EINTR) return false;
    }
}

/// The line of gnuplot's complaint that says what is wrong.
std::string complaint(const std::string& said) {
    for (std::size_t begin = 0; begin < said.size();) {
        const std::size_t end = std::min(said.find('\n', begin), said.size());
        const std::string line = said.substr(begin, end - begin);
        if (line.find("line ") != std::string::npos) return line;
        begin = end + 1;
    }
    return said.substr(0, said.find('\n'));
}

}  // namespace

std::string Gnuplot::run(const std::filesystem::path& folder, const std::string& script, double seconds) {
    if (!hopeless_.empty()) return hopeless_;
    Pipe pipe;
    if (pipe.ends[0] < 0) return "no pipe to gnuplot: " + std::generic_category().message(errno);
    pid_t child = 0;
    if (const int error = start(folder, script, pipe, child)) {
        return hopeless_ = error == ENOENT
                               ? "gnuplot is not installed (package gnuplot-nox)"
                               : "gnuplot cannot be started: " + std::generic_category().message(error);
    }
    pipe.close(1);
    std::string said;
    const bool ended = read_until(pipe.ends[0], seconds, said);
    if (!ended) ::kill(-child, SIGKILL);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!ended) core::check_interrupt();
    if (!ended)
        return hopeless_ = "gnuplot was stopped after " + core::seconds_text(seconds) + " (" + script + ")";
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
    return "gnuplot failed on " + script + (said.empty() ? "" : ": " + complaint(said));
}

}  // namespace thalweg::report
