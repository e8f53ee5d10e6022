#include <iostream>
#include <thread>

#include "context.hpp"
#include "runtime.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/version.hpp"

namespace {

using thalweg::app::Context;

constexpr const char* description =
    "Thalweg simulates federated learning on MPI ranks and fuses the clients' models in one loss valley.\n"
    "Alone it uses one process; under mpirun every rank trains clients.";

void add_commands(CLI::App& program, Context& context) {
    using namespace thalweg::app;
    add_run(program, context);
    add_validate(program, context);
    add_list(program, context);
    add_partition(program, context);
    add_train(program, context);
    add_eval(program, context);
    add_align(program, context);
    add_fuse(program, context);
    add_compare(program, context);
    add_report(program, context);
    add_lmc(program, context);
    add_signs(program, context);
    add_symmetry(program, context);
    add_valley(program, context);
    add_surface(program, context);
    add_variance(program, context);
    add_hessian(program, context);
    add_cka(program, context);
    add_flatness(program, context);
    add_support(program, context);
    add_instability(program, context);
    add_serve(program, context);
    add_study(program, context);
}

void complain(const Context& context, const std::string& what) {
    if (context.is_root) std::cerr << "thalweg: " << what << std::endl;
}

/// A misspelt command answers with the nearest; nothing when the first word is a command or an option.
std::optional<std::string> unknown_command(const CLI::App& program, int argc, char** argv) {
    if (argc < 2 || argv[1][0] == '-') return std::nullopt;
    std::vector<std::string> names;
    for (const auto* command : program.get_subcommands([](const CLI::App*) { return true; })) {
        if (command->get_name() == argv[1]) return std::nullopt;
        names.push_back(command->get_name());
    }
    return thalweg::core::unknown_name("command", argv[1], names);
}

/// Reads the command line; the exit code when there is nothing to run (--help, or an error).
std::optional<int> parse(CLI::App& program, const Context& context, int argc, char** argv) {
    if (const auto error = unknown_command(program, argc, argv)) {
        complain(context, "error: " + *error);
        return 2;
    }
    try {
        program.parse(argc, argv);
        return std::nullopt;
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) {  // --help, --version
            if (context.is_root) program.exit(error, std::cout, std::cerr);
            return std::cout.flush() ? 0 : 1;
        }
        const auto used = program.get_subcommands();
        const std::string help =
            used.empty() ? "thalweg --help" : "thalweg " + used.front()->get_name() + " --help";
        complain(context, std::string("error: ") + error.what() + ". See '" + help + "'");
        return 2;
    }
}

/// Errors that all ranks agreed on end the program in order; whatever only one rank knows of ends all at once.
int execute(Context& context) {
    try {
        context.action();
        return 0;
    } catch (const thalweg::core::Interrupted& error) {
        if (context.is_root)
            thalweg::app::say_when_interrupted(std::string("thalweg: ") + error.what() + "\n");
        // mpirun ends every rank when one leaves, so rank 0 gets a moment to say how to go on.
        if (!context.is_root) std::this_thread::sleep_for(std::chrono::milliseconds(300));
        std::cerr.flush();
        std::_Exit(130);
    } catch (const thalweg::core::Error& error) {
        complain(context, std::string("error: ") + error.what());
        return error.exit_code();
    } catch (const std::exception& error) {
        // Only this rank knows of it, or all do (a mistake in the same place): whoever is first says so.
        std::cerr << "thalweg: error: " << thalweg::core::as_error(error).what() << std::endl;
        if (context.communicator.size() > 1) context.backend.abort(1);
        return 1;
    }
}

}  // namespace

int main(int argc, char** argv) {
    thalweg::app::use_one_thread();
    thalweg::app::keep_freed_memory();
    std::unique_ptr<thalweg::backend::Backend> backend;
    try {
        backend = thalweg::backend::make_backend(&argc, &argv);
    } catch (const std::exception& error) {
        std::cerr << "thalweg: error: " << error.what() << std::endl;
        return 1;
    }
    thalweg::core::install_interrupt_handlers();
    auto& communicator = backend->communicator();
    Context context{*backend, communicator, communicator.rank() == 0, {}};

    CLI::App program(description, "thalweg");
    program.set_version_flag("--version", THALWEG_VERSION);
    program.require_subcommand(1);
    program.footer(
        "Examples:\n  mpirun -n 2 thalweg run configs/quickstart.yaml\n  thalweg list stage\n"
        "  thalweg run --help");
    add_commands(program, context);
    if (const auto code = parse(program, context, argc, argv)) return *code;
    if (context.is_root) {
        if (const auto warning = thalweg::app::blas_warning(); !warning.empty())
            thalweg::record::warn(warning);
    }
    return execute(context);
}
