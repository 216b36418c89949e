"""Bodies of the operators that ``ops.py`` describes, as ONNX text."""

from __future__ import annotations

_KNN = """
KnnSearch <k: int = 9, block: int = 128> (features, bank) => (distances, indices)
{
  k0 = Constant <value_int: int = @k> ()
  b0 = Constant <value_int: int = @block> ()
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  kk = Reshape (k0, flat)
  blk = Reshape (b0, flat)
  shape = Shape (features)
  q = Slice (shape, zero, one)
  c = Slice (shape, one, two)
  up = Add (q, blk)
  up1 = Sub (up, one)
  blocks = Div (up1, blk)
  whole = Mul (blocks, blk)
  missing = Sub (whole, q)
  pads = Concat <axis = 0> (zero, zero, missing, zero)
  padded = Pad (features, pads)
  cube = Concat <axis = 0> (blocks, blk, c)
  grouped = Reshape (padded, cube)
  bank_t = Transpose <perm = [1, 0]> (bank)
  bank_sq = Mul (bank, bank)
  norms = ReduceSum <keepdims = 0> (bank_sq, one)
  minus2 = Constant <value_float = -2.0> ()
  d3, i3 = Scan <num_scan_inputs = 1, body = per_block (float[qb, cb] x)
    => (float[qb, kb] d, int64[qb, kb] i)
  {
    cross = MatMul (x, bank_t)
    twice = Mul (cross, minus2)
    rank = Add (twice, norms)
    near, at = TopK <axis = -1, largest = 0, sorted = 1> (rank, kk)
    rows = Gather <axis = 0> (bank, at)
    x3 = Unsqueeze (x, one)
    gap = Sub (x3, rows)
    gap2 = Mul (gap, gap)
    exact = ReduceSum <keepdims = 0> (gap2, two)
    d, order = TopK <axis = -1, largest = 0, sorted = 1> (exact, kk)
    i = GatherElements <axis = 1> (at, order)
  }> (grouped)
  flat_k = Concat <axis = 0> (flat, kk)
  d_all = Reshape (d3, flat_k)
  i_all = Reshape (i3, flat_k)
  distances = Slice (d_all, zero, q, zero)
  indices = Slice (i_all, zero, q, zero)
}
"""

_SCORE = """
PatchScore <grid: ints = [1, 1]> (distances) => (score, patch_map)
{
  hw = Constant <value_ints: ints = @grid> ()
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  patches = ReduceProd <keepdims = 1> (hw)
  first = Slice (distances, zero, one, one)
  map_shape = Concat <axis = 0> (flat, one, hw)
  patch_map = Reshape (first, map_shape)
  per_image = Concat <axis = 0> (flat, patches)
  flat_map = Reshape (first, per_image)
  top, at = TopK <axis = -1> (flat_map, one)
  score = Reshape (top, flat)
}
"""

_SCORE_OWN = """
PatchScoreOwn <grid: ints = [1, 1]> (distances) => (score, patch_map)
{
  hw = Constant <value_ints: ints = @grid> ()
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  patches = ReduceProd <keepdims = 1> (hw)
  shape = Shape (distances)
  k = Slice (shape, one, two)
  first = Slice (distances, zero, one, one)
  map_shape = Concat <axis = 0> (flat, one, hw)
  patch_map = Reshape (first, map_shape)
  per_image = Concat <axis = 0> (flat, patches)
  flat_map = Reshape (first, per_image)
  top, at = TopK <axis = -1> (flat_map, one)
  cube = Concat <axis = 0> (flat, patches, k)
  grouped = Reshape (distances, cube)
  own = GatherND <batch_dims = 1> (grouped, at)
  last = Sub (k, one)
  far = Slice (own, last, k, one)
  shifted = Sub (own, far)
  e = Exp (shifted)
  others = Slice (e, zero, last, one)
  part = ReduceSum <keepdims = 1> (others, one)
  all = ReduceSum <keepdims = 1> (e, one)
  weight = Div (part, all)
  weighted = Mul (weight, top)
  score = Reshape (weighted, flat)
}
"""

_SCORE_PAPER = """
PatchScorePaper <grid: ints = [1, 1], k: int = 9> (distances, indices, features, bank)
  => (score, patch_map)
{
  hw = Constant <value_ints: ints = @grid> ()
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  patches = ReduceProd <keepdims = 1> (hw)
  first = Slice (distances, zero, one, one)
  map_shape = Concat <axis = 0> (flat, one, hw)
  patch_map = Reshape (first, map_shape)
  per_image = Concat <axis = 0> (flat, patches)
  flat_map = Reshape (first, per_image)
  top, at = TopK <axis = -1> (flat_map, one)
  first_at = Slice (indices, zero, one, one)
  flat_at = Reshape (first_at, per_image)
  nearest = GatherElements <axis = 1> (flat_at, at)
  member3 = Gather <axis = 0> (bank, nearest)
  shape = Shape (features)
  c = Slice (shape, one, two)
  wide = Concat <axis = 0> (flat, c)
  member = Reshape (member3, wide)
  cube = Concat <axis = 0> (flat, patches, c)
  grouped = Reshape (features, cube)
  worst = GatherND <batch_dims = 1> (grouped, at)
  member_d, around = adcompile.KnnSearch <k: int = @k, block = 8> (member, bank)
  support = Gather <axis = 0> (bank, around)
  worst3 = Unsqueeze (worst, one)
  gap = Sub (worst3, support)
  gap2 = Mul (gap, gap)
  squared = ReduceSum <keepdims = 0> (gap2, two)
  d = Sqrt (squared)
  far, far_at = TopK <axis = -1> (d, one)
  shifted = Sub (d, far)
  e = Exp (shifted)
  dshape = Shape (d)
  count = Slice (dshape, one, two)
  others = Slice (e, one, count, one)
  part = ReduceSum <keepdims = 1> (others, one)
  all = ReduceSum <keepdims = 1> (e, one)
  weight = Div (part, all)
  weighted = Mul (weight, top)
  score = Reshape (weighted, flat)
}
"""

_GAP = """
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  four = Constant <value_ints = [4]> ()
  shape = Shape (embedding)
  n = Slice (shape, zero, one)
  nc = Slice (shape, zero, two)
  hw = Slice (shape, two, four)
  ncp = Concat <axis = 0> (nc, flat)
  rows = Reshape (embedding, ncp)
  gap = Sub (rows, mean)
"""
"""What both distances begin with: ``gap`` [N, C, P] of an embedding [N, C, H, W], its sizes, numbers."""

_MAHALANOBIS = f"""
MahalanobisMap (embedding, mean, inverse) => (squared)
{{{_GAP}  none = Constant <value_float = 0.0> ()
  by_patch = Transpose <perm = [2, 0, 1]> (gap)
  turned = MatMul (by_patch, inverse)
  terms = Mul (turned, by_patch)
  form = ReduceSum <keepdims = 0> (terms, two)
  by_image = Transpose <perm = [1, 0]> (form)
  safe = Max (by_image, none)
  map_shape = Concat <axis = 0> (n, one, hw)
  squared = Reshape (safe, map_shape)
}}
"""

_WHITENED = f"""
WhitenedMap (embedding, mean, factor) => (squared)
{{{_GAP}  lanes = Constant <value_ints = [16]> ()
  start = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  half = Constant <value_int = 2> ()
  row_of_zeros = Constant <value_ints = [0, 0, 0, 0, 1, 0]> ()
  none_before = Constant <value_ints = [0, 0, 0, 0, 0]> ()
  sizes = Shape (mean)
  c = Slice (sizes, zero, one)
  p = Slice (sizes, one, two)
  packed = Shape (factor)
  b = Slice (packed, zero, one)
  places = Mul (b, lanes)
  channels = Squeeze (c, zero)
  numbers = Range (start, channels, step)
  column = Unsqueeze (numbers, zero)
  row = Unsqueeze (numbers, one)
  next = Add (row, step)
  area = Mul (row, next)
  row_start = Div (area, half)
  inside = Add (row_start, column)
  lower = GreaterOrEqual (row, column)
  triangle = Slice (packed, one, two)
  at = Where (lower, inside, triangle)
  extended = Pad (factor, row_of_zeros)
  beside = Gather <axis = 1> (extended, at)
  by_patch = Transpose <perm = [0, 3, 2, 1]> (beside)
  left_over = Sub (places, p)
  pads = Concat <axis = 0> (none_before, left_over)
  padded = Pad (gap, pads)
  groups = Concat <axis = 0> (nc, b, lanes)
  grouped = Reshape (padded, groups)
  gap_of_patch = Transpose <perm = [2, 3, 0, 1]> (grouped)
  white = MatMul (gap_of_patch, by_patch)
  squares = Mul (white, white)
  form = ReduceSum <keepdims = 0> (squares, flat)
  places_n = Concat <axis = 0> (places, n)
  together = Reshape (form, places_n)
  patches = Slice (together, zero, p, zero)
  by_image = Transpose <perm = [1, 0]> (patches)
  map_shape = Concat <axis = 0> (n, one, hw)
  squared = Reshape (by_image, map_shape)
}}
"""

_ERROR = """
SquaredErrorMap (a, b) => (error)
{
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  gap = Sub (a, b)
  gap2 = Mul (gap, gap)
  total = ReduceSum <keepdims = 1> (gap2, one)
  shape = Shape (a)
  c = Slice (shape, one, two)
  count = Cast <to = 1> (c)
  error = Div (total, count)
}
"""

_UPSAMPLE = """
MapUpsampleBlur (patch_map, rows, columns) => (out)
{
  tall = MatMul (rows, patch_map)
  out = MatMul (tall, columns)
}
"""

_NORMALIZE = """
NormalizeScore <threshold: float = 0.0, minimum: float = 0.0, maximum: float = 1.0> (x) => (y)
{
  t = Constant <value_float: float = @threshold> ()
  low = Constant <value_float: float = @minimum> ()
  high = Constant <value_float: float = @maximum> ()
  half = Constant <value_float = 0.5> ()
  none = Constant <value_float = 0.0> ()
  full = Constant <value_float = 1.0> ()
  width = Sub (high, low)
  above = Sub (x, t)
  scaled = Div (above, width)
  middle = Add (scaled, half)
  y = Clip (middle, none, full)
}
"""

_NORMALIZE_CDF = """
NormalizeScoreCdf <threshold: float = 1.0, std: float = 1.0> (x) => (y)
{
  t = Constant <value_float: float = @threshold> ()
  s = Constant <value_float: float = @std> ()
  tiny = Constant <value_float = 1e-30> ()
  half = Constant <value_float = 0.5> ()
  root2 = Constant <value_float = 1.4142135> ()
  safe = Max (x, tiny)
  lx = Log (safe)
  lt = Log (t)
  above = Sub (lx, lt)
  z = Div (above, s)
  z2 = Div (z, root2)
  f = Erf (z2)
  scaled = Mul (f, half)
  y = Add (scaled, half)
}
"""

BODIES = {
    "KnnSearch": _KNN,
    "PatchScore": _SCORE,
    "PatchScoreOwn": _SCORE_OWN,
    "PatchScorePaper": _SCORE_PAPER,
    "MahalanobisMap": _MAHALANOBIS,
    "WhitenedMap": _WHITENED,
    "SquaredErrorMap": _ERROR,
    "MapUpsampleBlur": _UPSAMPLE,
    "NormalizeScore": _NORMALIZE,
    "NormalizeScoreCdf": _NORMALIZE_CDF,
}
NEEDS = {"PatchScorePaper": ("KnnSearch",)}
