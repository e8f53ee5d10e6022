# Writes OUTPUT: the bytes of INPUT as thalweg::embedded::NAME::IDENTIFIER. Run at build time by thalweg_embed.
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "................................" "\\0\n" bytes "${bytes}")  # sixteen bytes a line
string(REGEX REPLACE "[0-9a-f][0-9a-f]" "'\\\\x\\0'," bytes "${bytes}")
file(WRITE ${OUTPUT}
"#include <string_view>

namespace thalweg::embedded::${NAME} {
namespace {
// a zero at the end, so that an empty file is no empty array
constexpr char bytes[] = {
${bytes}0};
}  // namespace
extern const std::string_view ${IDENTIFIER};
constinit const std::string_view ${IDENTIFIER}(bytes, sizeof(bytes) - 1);
}  // namespace thalweg::embedded::${NAME}
")
