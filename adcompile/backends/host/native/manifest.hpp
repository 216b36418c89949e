// The bundle's manifest.json: what was built, and for which parts this program was generated.
#pragma once

#include <string>

#include "bundle_info.hpp"
#include "json.hpp"

namespace adc {

/// Reads the manifest of the bundle in `folder`.
[[nodiscard]] Json read_manifest(const std::string& folder);

/// Checks a file of the bundle against size and SHA-256 of its manifest. A file that the manifest
/// does not list (a plan built on the board) passes.
void check_bundle_file(const std::string& folder, const std::string& path);

/// Fails, naming the part and the field, unless the manifest describes the parts that this program
/// was generated for: names, executors, precisions, tensors, and options such as the layout of
/// regions. All of that is compiled in; the manifest is what a person reads and hands on.
void check_parts(const std::string& folder, const BundleInfo& info);

/// True for a relative path that stays inside: no "..", no drive, no backslash, in plain form.
[[nodiscard]] bool is_bundle_path(const std::string& path);

}  // namespace adc
