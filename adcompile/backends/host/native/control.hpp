// Support for loops: rows of a scanned tensor, and results that grow by one row per trip.
#pragma once

#include "tensor.hpp"

namespace adc::op {

/// Row i of axis 0, as a view.
template <class T>
View<T> row(View<T> x, Index i) {
  require(x.rank() > 0 && i >= 0 && i < x.dim(0), "Scan: no such row");
  Shape shape;
  for (int d = 1; d < x.rank(); ++d) shape.push_back(x.dim(d));
  return {x.data() + i * shape.size(), shape};
}

/// The result of a loop that has not run yet.
template <class T>
View<T> nothing(Out<T> out, const Shape& shape) {
  return {out.make(shape), shape};
}

/// Adds x as one more row; the rows so far lie at the start of the same buffer.
template <class T>
View<T> append_row(Out<T> out, View<T> rows, View<T> x) {
  const Index count = rows.dim(0);
  Shape shape{count + 1};
  for (const Index d : x.shape()) shape.push_back(d);
  if (count > 0) {
    require(rows.rank() == shape.rank(), "loop results of different ranks");
    for (int d = 1; d < shape.rank(); ++d) {
      require(rows.dim(d) == shape[d], "loop results of different shapes");
    }
  }
  const auto bytes = [](Index n) {
    return static_cast<std::size_t>(checked_product(n, Index{sizeof(T)}));
  };
  const Index used = count * x.size();
  T* y = reinterpret_cast<T*>(out.buffer()->extend(bytes(used + x.size()), bytes(used)));
  copy_elements(x.data(), x.size(), y + used);
  return {y, shape};
}

}  // namespace adc::op
