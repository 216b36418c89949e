// All operators of the host backend.
#pragma once

#include "control.hpp"
#include "detection.hpp"
#include "lookup.hpp"
#include "map.hpp"
#include "move.hpp"
#include "reduce.hpp"
#include "sort.hpp"
#include "view.hpp"
