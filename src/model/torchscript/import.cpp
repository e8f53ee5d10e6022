#include "thalweg/model/torchscript.hpp"

#include <torch/types.h>

#include <array>
#include <cstdio>
#include <span>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/interpreter.hpp"
#include "translator.hpp"

namespace thalweg::model {

namespace {

using torchscript::Trace;

/// The module's outputs and the graph's on the same random inputs. What no rule of the translation foresaw (an
/// in-place operation on part of a tensor, a layer that does something else while training) shows here.
void compare(const std::filesystem::path& path, const ImportedModel& model, const Trace& trace,
             std::int64_t symbols) {
    core::Random random(1, "torchscript");
    for (const std::int64_t batch : {1, 4}) {
        Sizes sizes{batch};
        sizes.insert(sizes.end(), model.graph.input_shape().begin(), model.graph.input_shape().end());
        auto input = at::empty(sizes, at::kFloat);
        auto* data = input.data_ptr<float>();
        for (std::int64_t i = 0; i < input.numel(); ++i)
            data[i] = static_cast<float>(symbols > 0 ? static_cast<double>(random.below(symbols))
                                                     : random.normal());
        at::Tensor theirs;
        try {
            theirs = trace.evaluate(trace.tokens ? input.to(at::kLong) : input);
        } catch (const std::exception& error) {
            throw core::UsageError(path.string() + ": the module cannot be evaluated on a batch of " +
                                   std::to_string(batch) + ": " + core::first_paragraph(error.what()) + ".");
        }
        const at::NoGradGuard no_grad;
        const auto ours = forward(model.graph, views(model.parameters), input, Mode::evaluate);
        const bool fits = theirs.sizes() == ours.sizes();
        const auto largest = fits ? theirs.abs().max().item<double>() : 0.0;
        const auto apart = fits ? (theirs - ours).abs().max().item<double>() : 0.0;
        if (fits && apart <= 1e-3 * std::max(largest, 1.0)) continue;
        throw core::UsageError(path.string() +
                               ": the imported graph does not compute what the module does (" +
                               (fits ? "outputs differ by " + std::to_string(apart)
                                     : "its output is " + core::shape_text(theirs.sizes().vec())) +
                               " on a batch of " + std::to_string(batch) +
                               "): it may write into part of a tensor, compute differently in training and "
                               "evaluation, give infinite "
                               "values, or round numbers. Change that line of the module.");
    }
}

ImportedModel import_content(const std::filesystem::path& path, const std::string& content,
                             const Sizes& input_shape, std::int64_t classes, const core::Value& spec) {
    torchscript::check_archive(path, content);
    const auto trace = torchscript::trace_module(path, content, input_shape);
    torchscript::Translator translator(path, trace, input_shape);
    const int output = translator.run(classes);
    auto model = translator.draft.finish(output, spec);
    compare(path, model, trace, translator.symbols);
    return model;
}

/// The plug-in. The graph's description gets the file's absolute path and checksum, so that a model file written after
/// training finds it again.
ModelGraph build(const core::Value& options, const Sizes& input_shape, std::int64_t classes) {
    const std::filesystem::path path = options["file"].as_text();
    std::string content;
    try {
        content = core::read_file(path);
    } catch (const core::RunError& error) {
        options["file"].reject(
            std::string(error.what()) +
            ". A model of kind torchscript is built from this file, also when its trained "
            "parameters are in another one; put it back, or say where it is: model.file=… for a "
            "configuration, --model for a model file");
    }
    const auto checksum = module_checksum(content);
    if (options.has("checksum") && options["checksum"].as_text() != checksum) {
        options["checksum"].reject(path.string() + " has changed: its checksum is " + checksum + ", not " +
                                   options["checksum"].as_text() +
                                   ". Put the old file back, or leave 'checksum' out to take the new one");
    }
    auto spec = options;
    std::error_code ignored;
    const auto absolute = std::filesystem::absolute(path, ignored);
    spec.set("file", core::Value::scalar((ignored ? path : absolute.lexically_normal()).string(), true));
    spec.set("checksum", core::Value::scalar(checksum, true));
    auto model = import_content(path, content, input_shape, classes, spec);
    if (options["start"].as_text() == "file")
        model.graph.start = std::make_shared<const Parameters>(std::move(model.parameters));
    return std::move(model.graph);
}

const core::Registration<ModelGraph, const Sizes&, std::int64_t> import_registration{
    {.kind = "model",
     .name = "torchscript",
     .help = "a module that Python saved with torch.jit.save, scripted or traced; read only files you trust, "
             "they are "
             "code",
     .citation = "",
     .options = {core::text("file", "the module's file"),
                 core::choice(
                     "start", {"file", "random"},
                     "training starts from the file's values, or from new ones drawn as PyTorch's layers do")
                     .by_default("file"),
                 core::text("checksum", "refuse the file unless it is this one (filled in by the program)")
                     .optional()}},
    build};

}  // namespace

std::string module_checksum(const std::string& content) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%08x-%zu",
                  core::crc32(std::as_bytes(std::span(content.data(), content.size()))), content.size());
    return text.data();
}

ImportedModel import_torchscript(const std::filesystem::path& path, const std::string& content,
                                 const Sizes& input_shape, std::int64_t classes) {
    return import_content(path, content, input_shape, classes, core::Value::map());
}

ImportedModel import_torchscript(const std::filesystem::path& path, const Sizes& input_shape,
                                 std::int64_t classes) {
    return import_torchscript(path, core::read_file(path), input_shape, classes);
}

}  // namespace thalweg::model
