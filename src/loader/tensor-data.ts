import type { Tensor } from '../model/types.ts'

/** A tensor and the file of the model that holds it. */
export interface LocatedTensor extends Tensor {
  /** The file's path within the model. */
  file: string
}

export type TensorArray =
  Float32Array | Float64Array | Int8Array | Int16Array | Int32Array | BigInt64Array |
  Uint8Array | Uint16Array | Uint32Array | BigUint64Array

/**
 * A tensor's values in row-major order. What has no exact array type in JavaScript comes raw, to be read by its dtype:
 * BF16 and F16 as 16-bit words, FP8 and BOOL as bytes, FP4 and FP6 as packed bytes, C64 as pairs of 32-bit floats.
 */
export interface TensorData extends LocatedTensor {
  data: TensorArray
}

/** A typed view of a tensor's bytes, which start at the start of their buffer: every element is aligned. */
export function viewOf (dtype: string, { buffer, byteOffset, byteLength }: Uint8Array): TensorArray {
  const view = <Result> (Type: { readonly BYTES_PER_ELEMENT: number, new (buffer: ArrayBufferLike, byteOffset: number, length: number): Result }): Result =>
    new Type(buffer, byteOffset, byteLength / Type.BYTES_PER_ELEMENT)
  switch (dtype) {
    case 'F64': return view(Float64Array)
    case 'F32': case 'C64': return view(Float32Array)
    case 'I64': return view(BigInt64Array)
    case 'U64': return view(BigUint64Array)
    case 'I32': return view(Int32Array)
    case 'U32': return view(Uint32Array)
    case 'I16': return view(Int16Array)
    case 'U16': case 'F16': case 'BF16': return view(Uint16Array)
    case 'I8': return view(Int8Array)
    default: return view(Uint8Array)
  }
}
