// Device parts: one small interface (Stage), one file per runtime behind it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "bundle_info.hpp"

namespace adc {

/// What an engine may use to open its part.
struct EngineContext {
  std::string folder;    // of the bundle
  const BundleInfo* info = nullptr;
  const PartInfo* part = nullptr;
  std::vector<Port> inputs;   // what the device model takes …
  std::vector<Port> outputs;  // … and gives: the part's own tensors, or images of them
  Index rows = 0;             // regions that it was compiled for, 0: it has one file for any
  std::map<std::string, std::string> options;  // --device-option NAME=VALUE
  std::size_t sample = 0;                      // golden sample, for recorded engines
};

/// The first of `uses` that the part has a file for, the one for its number of regions if there are
/// several; "" when it has none.
[[nodiscard]] std::string find_use(const EngineContext& context,
                                   const std::vector<std::string>& uses);
/// The path of the part's file for `use`; fails when the bundle has none.
[[nodiscard]] std::string part_file(const EngineContext& context, const std::string& use);
[[nodiscard]] bool has_file(const EngineContext& context, const std::string& use);
[[nodiscard]] std::string option(const EngineContext& context, const std::string& name,
                                 const std::string& otherwise);

/// The context of a part as it is; `options` are for the engine.
[[nodiscard]] EngineContext context_of(const std::string& folder, const BundleInfo& info,
                                       const PartInfo& part,
                                       const std::map<std::string, std::string>& options);

/// Opens a device part. A part of regions is run in pieces that its device models take: padded, or
/// as tiles of an image. `kind` is that of open_engine; recorded answers need no pieces.
[[nodiscard]] std::unique_ptr<Stage> open_device_part(const std::string& kind,
                                                      const EngineContext& context);

/// Opens a device model. `kind`: recorded, tensorrt, drpai, onnxruntime, or auto (by the part's
/// executor). Fails with a sentence when the program was built without that runtime.
[[nodiscard]] std::unique_ptr<Stage> open_engine(const std::string& kind,
                                                 const EngineContext& context);

[[nodiscard]] std::unique_ptr<Stage> open_recorded(const EngineContext& context);
[[nodiscard]] std::unique_ptr<Stage> open_tensorrt(const EngineContext& context);
[[nodiscard]] std::unique_ptr<Stage> open_drpai(const EngineContext& context);
[[nodiscard]] std::unique_ptr<Stage> open_onnxruntime(const EngineContext& context);

}  // namespace adc
