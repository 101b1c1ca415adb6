import type { CID } from 'multiformats/cid'
import {
  EmptyModelError, FILE_SIZE_MAX, HashMismatchError, InvalidCidError, InvalidManifestError, InvalidPathError, LimitExceededError,
  MANIFEST_BYTES_MAX, MANIFEST_FILES_MAX, PATH_BYTES_MAX, asError, inTurns, type Turns
} from '../base/index.ts'
import { checkMetadataCid, hashMetadata, verifyBytes, viewOfCid } from './block.ts'
import { CanonicalReader, NotCanonicalError } from './canonical-reader.ts'
import { CanonicalWriter } from './canonical-writer.ts'
import { checkPaths } from './path.ts'
import { printable } from './printable.ts'
import type { Encoded, FileIndex, Manifest, ManifestFile } from './types.ts'

/** Blocks compared in one go: some ms. */
const BLOCKS_PER_TURN = 4_096

/**
 * The canonical bytes of a manifest. Files may come in any order and are sorted by path. Throws EmptyModelError,
 * InvalidPathError, InvalidCidError, LimitExceededError, and InvalidManifestError for sizes that are no file sizes.
 */
export function encodeManifest (manifest: Manifest): Encoded<Manifest> {
  if (manifest.files.length === 0) throw new EmptyModelError('a model needs at least one file')
  if (manifest.files.length > MANIFEST_FILES_MAX) {
    throw new LimitExceededError(`a model holds at most ${MANIFEST_FILES_MAX} files, not ${manifest.files.length}; publish it in parts`)
  }
  checkPaths(manifest.files.map(file => file.path))
  const files = manifest.files
    .map(({ path, size, index }) => ({ path, size, index: checkMetadataCid(index) }))
    .sort((a, b) => (a.path < b.path ? -1 : 1))
  checkSizes(files)
  const value: Manifest = { version: 1, files }
  const bytes = writeManifest(value)
  if (bytes.length > MANIFEST_BYTES_MAX) {
    throw new LimitExceededError(`the manifest would have ${bytes.length} bytes, at most ${MANIFEST_BYTES_MAX} are allowed; shorten the paths or publish it in parts`)
  }
  return { cid: hashMetadata(bytes), bytes, value }
}

/**
 * A manifest from the bytes that `cid` names. The bytes are copied. Throws HashMismatchError when they are not the
 * ones it names, InvalidManifestError when they are no canonical manifest within the limits; its cause tells the rule.
 */
export function decodeManifest (cid: CID, bytes: Uint8Array): Encoded<Manifest> {
  const invalid = (why: string, cause?: unknown): InvalidManifestError =>
    new InvalidManifestError(`${cid.toString()} is not a valid manifest: ${why}. Whoever published it has to publish it again`, { cause })
  if (bytes.length > MANIFEST_BYTES_MAX) throw invalid(`it has ${bytes.length} bytes, at most ${MANIFEST_BYTES_MAX} are allowed`)
  if (!verifyBytes(checkMetadataCid(cid), bytes)) throw new HashMismatchError(`the bytes given for the manifest ${cid.toString()} are not the ones it names`)
  const own = new Uint8Array(bytes)
  try {
    const value = readManifest(new CanonicalReader(own))
    checkPaths(value.files.map(file => file.path))
    checkSizes(value.files)
    return { cid, bytes: own, value }
  } catch (error) {
    if (error instanceof NotCanonicalError || error instanceof InvalidPathError || error instanceof InvalidCidError || error instanceof InvalidManifestError) {
      throw invalid(asError(error).message, error)
    }
    throw error
  }
}

function writeManifest ({ files, version }: Manifest): Uint8Array {
  const writer = new CanonicalWriter()
  writer.map(2)
  writer.text('files')
  writer.array(files.length)
  for (const { path, size, index } of files) {
    writer.map(3)
    writer.text('path')
    writer.text(path)
    writer.text('size')
    writer.uint(size)
    writer.text('index')
    writer.link(index.bytes)
  }
  writer.text('version')
  writer.uint(version)
  return writer.end()
}

/** DAG-CBOR sorts keys by length, then by bytes. */
function readManifest (reader: CanonicalReader): Manifest {
  reader.map(2)
  reader.key('files')
  const count = reader.array(MANIFEST_FILES_MAX, 'files')
  if (count === 0) throw new NotCanonicalError('it holds no file')
  const files: ManifestFile[] = []
  let last = ''
  for (let i = 0; i < count; i++) {
    reader.map(3)
    reader.key('path')
    const path = reader.text(PATH_BYTES_MAX, 'a path')
    reader.key('size')
    const size = reader.uint(FILE_SIZE_MAX, 'a file size')
    reader.key('index')
    const index = checkMetadataCid(viewOfCid(reader.link('a file index')))
    if (path < last) throw new NotCanonicalError(`the path ${printable(path)} stands after ${printable(last)}; paths are sorted`)
    last = path
    files.push({ path, size, index })
  }
  reader.key('version')
  const version = reader.uint(Number.MAX_SAFE_INTEGER, 'the version')
  if (version !== 1) throw new NotCanonicalError(`its version is ${version} and this Shoal knows version 1`)
  reader.end()
  return { version: 1, files }
}

function checkSizes (files: readonly ManifestFile[]): void {
  let total = 0
  for (const { path, size } of files) {
    if (!Number.isSafeInteger(size) || size < 0) throw new InvalidManifestError(`${path} has the size ${size}, which is none`)
    total += size
    if (total > FILE_SIZE_MAX) throw new InvalidManifestError('the sizes of its files add up to more than 2^53 - 1 bytes')
  }
}

/**
 * Throws InvalidManifestError unless `indexes[i]` can be the index of `manifest.files[i]`: equal sizes, and blocks that
 * occur more than once always of the same size. In turns: a model may have more than a million blocks.
 */
export async function checkModel (manifest: Manifest, indexes: readonly FileIndex[]): Promise<void> {
  await inTurns(checkingModel(manifest, indexes))
}

function * checkingModel (manifest: Manifest, indexes: readonly FileIndex[]): Turns<void> {
  if (indexes.length !== manifest.files.length) {
    throw new InvalidManifestError(`a model of ${manifest.files.length} files came with ${indexes.length} file indexes`)
  }
  const sizes = new Map<string, number>()
  const seen = new Set<FileIndex>()
  let compared = 0
  for (const [i, { path, size }] of manifest.files.entries()) {
    const index = indexes[i]
    if (index === undefined || index.size !== size) {
      throw new InvalidManifestError(`the manifest gives ${path} ${size} bytes and its file index ${index?.size ?? 0}; whoever published it has to publish it again`)
    }
    if (seen.has(index)) continue
    seen.add(index)
    for (let block = 0; block < index.blocks.length; block++) {
      if (++compared % BLOCKS_PER_TURN === 0) yield
      const key = index.blocks.keyAt(block) ?? ''
      const blockSize = index.sizes[block] ?? 0
      const known = sizes.get(key)
      if (known === undefined) sizes.set(key, blockSize)
      else if (known !== blockSize) throw new InvalidManifestError(`the block ${index.blocks.at(block)?.toString() ?? ''} of ${path} has ${blockSize} bytes, and ${known} elsewhere in the model`)
    }
  }
}
