// All kernels for one instruction set, named BITGNN_ISA: loops of which the compiler makes vectors.
//
// What stands here is compiled once per set, into a namespace of its own. Nothing here calls
// functions that are shared between them (std::vector, say): the linker keeps one copy of such a
// function, and it might be one that this processor cannot run.

#include "kernels.h"
#include "common.inl"

#include "attention.inl"
#include "gradient.inl"
#include "pass.inl"
#include "random.inl"
#include "rows.inl"

#define BITGNN_TEXT_(x) #x
#define BITGNN_TEXT(x) BITGNN_TEXT_(x)

namespace bitgnn::BITGNN_ISA {

template <class T>
constexpr Typed<T> typed() {
    return {attention<T>, attention_backward<T>, quantize_rows<T>, dropout<T>};
}

const Kernels& table() {
    static const Kernels found{BITGNN_TEXT(BITGNN_ISA), typed<float>(), typed<double>(), uniform,
                               pack_codes, pack_numbers, weight_gradient, gradient_room, run_pass,
                               room};
    return found;
}

}  // namespace bitgnn::BITGNN_ISA
