import { isUtf8 } from 'node:buffer'
import { InvalidSafetensorsError, KiB, SAFETENSORS_HEADER_BYTES_MAX, SAFETENSORS_RANK_MAX, SAFETENSORS_TENSORS_MAX, atOnce, inTurns, type Turns } from '../base/index.ts'
import { printable } from './printable.ts'
import { JsonReader } from './json-reader.ts'
import type { ReadAt, Tensor } from './types.ts'

/** Bits of one element, for every dtype of the reference implementation (safetensors 0.7, tensor.rs). */
export const DTYPE_BITS: Readonly<Record<string, number>> = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64
}

/** The header's length stands before it, 8 bytes little-endian. */
const LENGTH_BYTES = 8
const METADATA = '__metadata__'

export interface SafetensorsFile {
  /** Where the first tensor's bytes start: the length prefix and the header. */
  headerBytes: number
  /** Sorted by offset; they cover the rest of the file without holes. */
  tensors: Tensor[]
}

/** Header bytes that are read before others get a turn: a few milliseconds. */
const BYTES_PER_TURN = 128 * KiB
/** Tensors that are sorted or compared in one go: likewise. */
const TENSORS_PER_TURN = 4_096

/**
 * Reads and validates the header of a safetensors file of `size` bytes. Others get their turn while a large one is read. Throws
 * InvalidSafetensorsError and whatever `readAt` throws.
 */
export async function readSafetensors (readAt: ReadAt, size: number): Promise<SafetensorsFile> {
  if (size < LENGTH_BYTES) throw invalid(`the file has ${size} bytes, too few for a header`)
  const prefix = await readAt(0, LENGTH_BYTES)
  if (prefix.length !== LENGTH_BYTES) throw invalid('the file ended while its header was read')
  const length = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES).getBigUint64(0, true)
  if (length > BigInt(SAFETENSORS_HEADER_BYTES_MAX)) throw invalid(`the header claims ${length} bytes; at most ${SAFETENSORS_HEADER_BYTES_MAX} are allowed`)
  const headerLength = Number(length)
  if (LENGTH_BYTES + headerLength > size) throw invalid(`the header claims ${headerLength} bytes and the file has ${size}`)
  const header = await readAt(LENGTH_BYTES, headerLength)
  if (header.length !== headerLength) throw invalid('the file ended while its header was read')
  return { headerBytes: LENGTH_BYTES + headerLength, tensors: await inTurns(parseInTurns(header, size)) }
}

/**
 * The tensors that a header (the JSON, without its length) gives to a file of `fileSize` bytes, sorted by offset, which
 * is from the start of the file. As strict as the reference implementation and its README: no hole, no overlap, all of
 * the file covered, lengths that follow from shape and dtype, no key twice; stricter in that keys beyond dtype, shape
 * and data_offsets are refused. Throws InvalidSafetensorsError.
 */
export function parseSafetensorsHeader (header: Uint8Array, fileSize: number): Tensor[] {
  return atOnce(parseInTurns(header, fileSize))
}

function * parseInTurns (header: Uint8Array, fileSize: number): Turns<Tensor[]> {
  if (header.length > SAFETENSORS_HEADER_BYTES_MAX) throw invalid(`the header has ${header.length} bytes; at most ${SAFETENSORS_HEADER_BYTES_MAX} are allowed`)
  if (header[0] !== 0x7b) throw invalid('the header does not start with {')
  if (!isUtf8(header)) throw invalid('the header is not UTF-8')
  const dataStart = LENGTH_BYTES + header.length
  const tensors = yield * sortInTurns(yield * readTensors(new JsonReader(header, invalid), dataStart))
  let end = dataStart
  for (const [at, { name, offset, length }] of tensors.entries()) {
    if (at % TENSORS_PER_TURN === TENSORS_PER_TURN - 1) yield
    if (offset !== end) throw invalid(`the tensor ${printable(name)} starts at byte ${offset - dataStart} of the data, and the one before ends at ${end - dataStart}`)
    end = offset + length
  }
  if (end !== fileSize) throw invalid(`the tensors end at byte ${end} and the file at ${fileSize}`)
  return tensors
}

function * readTensors (json: JsonReader, dataStart: number): Turns<Tensor[]> {
  const tensors: Tensor[] = []
  for (const name of keysInTurns(json, 'the header')) {
    if (name === undefined) yield
    else if (name === METADATA) yield * readMetadata(json)
    else {
      if (tensors.length === SAFETENSORS_TENSORS_MAX) throw invalid(`more than ${SAFETENSORS_TENSORS_MAX} tensors`)
      tensors.push(readTensor(json, name, dataStart))
    }
  }
  yield * json.end(BYTES_PER_TURN)
  return tensors
}

function * readMetadata (json: JsonReader): Turns<void> {
  for (const key of keysInTurns(json, METADATA)) {
    if (key === undefined) yield
    else yield * json.skipString(BYTES_PER_TURN)
  }
}

/** The keys of an object, whose values the caller reads; undefined when it is time for others. */
function * keysInTurns (json: JsonReader, what: string): Generator<string | undefined> {
  const keys = new Set<string>()
  let turnEnd = json.position + BYTES_PER_TURN
  if (!json.begin()) return
  do {
    const key = json.key()
    if (keys.has(key)) throw invalid(`the key ${printable(key)} of ${what} occurs twice`)
    keys.add(key)
    yield key
    if (json.position < turnEnd) continue
    turnEnd = json.position + BYTES_PER_TURN
    yield undefined
  } while (json.more())
}

/** By offset; where they begin together, the empty ones first. */
function inOrder (a: Tensor, b: Tensor): number {
  return a.offset - b.offset || a.length - b.length || (a.name < b.name ? -1 : 1)
}

/** Merges runs that are each sorted in one go. */
function * sortInTurns (tensors: Tensor[]): Turns<Tensor[]> {
  if (tensors.length <= TENSORS_PER_TURN) return tensors.sort(inOrder)
  let runs: Tensor[][] = []
  for (let at = 0; at < tensors.length; at += TENSORS_PER_TURN) {
    runs.push(tensors.slice(at, at + TENSORS_PER_TURN).sort(inOrder))
    yield
  }
  while (runs.length > 1) {
    const merged: Tensor[][] = []
    for (let at = 0; at < runs.length; at += 2) merged.push(yield * mergeInTurns(runs[at] ?? [], runs[at + 1] ?? []))
    runs = merged
  }
  return runs[0] ?? []
}

function * mergeInTurns (left: Tensor[], right: Tensor[]): Turns<Tensor[]> {
  const merged: Tensor[] = []
  for (let fromLeft = 0, fromRight = 0; merged.length < left.length + right.length;) {
    const one = left[fromLeft]
    const other = right[fromRight]
    if (one !== undefined && (other === undefined || inOrder(one, other) <= 0)) {
      merged.push(one)
      fromLeft++
    } else if (other !== undefined) {
      merged.push(other)
      fromRight++
    }
    if (merged.length % TENSORS_PER_TURN === 0) yield
  }
  return merged
}

function readTensor (json: JsonReader, name: string, dataStart: number): Tensor {
  let dtype: string | undefined
  let shape: number[] | undefined
  let range: number[] | undefined
  const bad = (why: string): InvalidSafetensorsError => invalid(`the tensor ${printable(name)} ${why}`)
  json.object(key => {
    if (key === 'dtype' && dtype === undefined) dtype = json.string()
    else if (key === 'shape' && shape === undefined) shape = json.integers(SAFETENSORS_RANK_MAX)
    else if (key === 'data_offsets' && range === undefined) range = json.integers(2)
    else throw bad(`has an unexpected or second key ${printable(key)}`)
  })
  if (dtype === undefined || shape === undefined || range === undefined) throw bad('lacks dtype, shape or data_offsets')
  const [begin, end] = range
  if (begin === undefined || end === undefined || begin > end) throw bad('has data_offsets that are not [begin, end]')
  const length = tensorBytes(dtype, shape, bad)
  if (end - begin !== length) throw bad(`of ${dtype} [${shape.join(', ')}] needs ${length} bytes and has ${end - begin}`)
  return { name, dtype, shape, offset: dataStart + begin, length }
}

function tensorBytes (dtype: string, shape: readonly number[], bad: (why: string) => InvalidSafetensorsError): number {
  const bits = Object.hasOwn(DTYPE_BITS, dtype) ? DTYPE_BITS[dtype] : undefined
  if (bits === undefined) throw bad(`has the unknown dtype ${printable(dtype)}`)
  let elements = 1
  for (const dimension of shape) {
    elements *= dimension
    if (!Number.isSafeInteger(elements)) throw bad('has a shape of more than 2^53 elements')
  }
  const all = elements * bits
  if (!Number.isSafeInteger(all)) throw bad('has a shape of more than 2^53 bits')
  if (all % 8 !== 0) throw bad(`of ${dtype} [${shape.join(', ')}] does not end at a byte`)
  return all / 8
}

function invalid (why: string): InvalidSafetensorsError {
  return new InvalidSafetensorsError(`not a valid safetensors file: ${why}`)
}
