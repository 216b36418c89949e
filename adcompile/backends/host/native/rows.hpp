// Parts whose rows are regions, on devices of fixed shapes.
#pragma once

#include "engine.hpp"
#include "mosaic.hpp"

namespace adc {

/// What every way to run regions has in common: rows are counted, results of several calls joined,
/// and no rows give no rows without a call.
class RowStage : public Stage {
 public:
  RowStage(std::string name, std::vector<Port> inputs, std::vector<Port> outputs);

  [[nodiscard]] const char* name() const final { return name_.c_str(); }
  [[nodiscard]] const std::vector<Port>& inputs() const final { return inputs_; }
  [[nodiscard]] const std::vector<Port>& outputs() const final { return outputs_; }
  void run(const AnyView* in, AnyView* out) final;

 protected:
  /// Runs all rows, at least one.
  virtual void run_rows(const AnyView* in, Index rows, AnyView* out) = 0;

  /// Rows [start, start + count) of a tensor that is cut along its first dimension.
  [[nodiscard]] static AnyView slice(const AnyView& tensor, Index start, Index count);
  /// Place of row `start` in the joined output `i`, which has `rows` of `bytes` each.
  std::byte* joined(std::size_t i, Index rows, Index start, std::size_t bytes);
  /// True when input `i` is cut by rows.
  [[nodiscard]] bool by_row(std::size_t i) const { return by_row_[i]; }

 private:
  [[nodiscard]] Index count_rows(const AnyView* in) const;
  void nothing(AnyView* out);

  std::string name_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  std::vector<bool> by_row_;
  std::vector<Buffer> joined_;
};

/// Runs `inner` in pieces of its fixed row counts (any count when there are none), padding with zeros.
[[nodiscard]] std::unique_ptr<Stage> by_rows(std::unique_ptr<Stage> inner, const PartInfo& part);

/// The layout in the part's options, "" when it is run otherwise. Options of a user do not count.
[[nodiscard]] std::string mosaic_of(const PartInfo& part);

/// Opens one device model per grid of `layout` (text). Rows are laid out as tiles of one image, as
/// many per call as fit.
[[nodiscard]] std::unique_ptr<Stage> by_mosaic(const std::string& kind,
                                               const EngineContext& context,
                                               const std::string& layout);

}  // namespace adc
