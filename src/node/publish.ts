import { constants, open, stat, type FileHandle } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { createHash, type Hash } from 'node:crypto'
import { pipe } from 'it-pipe'
import type { CID } from 'multiformats/cid'
import { GIT_SHA1_SIZE_MAX, LimitExceededError, MODEL_INDEX_BYTES_MAX, MiB, ModelNotFoundError, SourceChangedError, UnreadableSourceError, asError, systemCode, throwIfAborted, type Clock } from '../base/index.ts'
import { encodeFileIndex, encodeManifest, gitBlobHash, hashBlock, planBlocks, type Encoded, type FileIndex, type ManifestFile } from '../model/index.ts'
import { SlotPool, type FileGuard, type FileImport, type ImportOptions, type ModelStore, type RunningAdd, type Slot } from '../storage/index.ts'
import { Sha256Thread } from './sha256-pool.ts'
import { listSource, type SourceFile, type SourceTree } from './source-files.ts'
import type { AddOptions, AddResult } from './types.ts'

export interface PublishOptions extends AddOptions {
  /** Called with each source file when its bytes are in the store, and durable. */
  onStored?: (path: string) => Promise<void>
  /** Called with the model CID before the store has the model. */
  onNamed?: (cid: string) => Promise<void>
  /** Nobody writes to the files any more, and they are removed when they are stored: they go into the store as they are, where that can be. */
  isGiven?: boolean
  /** Default true. False: it may be evicted like what was loaded. */
  published?: boolean
  /** The data directory of this node: nothing in it is taken, but models. */
  ownDirectory?: string | undefined
}

export interface PublishComponents { store: ModelStore, clock: Clock }

/** Where files go, and what with. */
interface Destination { store: ModelStore, add: RunningAdd }

/** Blocks of one file between read and stored. Four keep reading, hashing and writing busy at once. */
const BLOCKS_AHEAD = 4
/** Up to this a file is hashed where it is: waking another thread costs more. */
const SMALL_BYTES_MAX = 1 * MiB
/** Small files on their way at once: as many as the store takes in one go. Each has two descriptors at most. */
const SMALL_FILES_AT_ONCE = 64

interface PublishedBlock { cid: CID, size: number }
interface FileResult { entry: ManifestFile, index: Encoded<FileIndex>, newBytes: number }

/**
 * The journey of `add`: list the files, and for each: plan its blocks, then read -> hash -> store, name it by its index;
 * at last name the model by its manifest and put it into the store. Announcing is the caller's. Nothing is visible as
 * a model until all of it is durable.
 */
export async function publish (components: PublishComponents, path: string, options: PublishOptions = {}): Promise<AddResult> {
  const started = components.clock.monotonic()
  const tree = await listSource(path, { follow: options.follow ?? false, followWithin: options.followWithin, ownDirectory: options.ownDirectory, inPlace: options.inPlace, signal: options.signal })
  // What came in by then is not in use when it ends without its model.
  const add = components.store.startAdd()
  try {
    const results = await storeFiles({ store: components.store, add }, tree, options)
    const cid = await name(components, path, results, options)
    return {
      cid,
      files: tree.files.length,
      bytes: tree.bytes,
      blocks: results.reduce((sum, result) => sum + result.index.value.blocks.length, 0),
      newBytes: results.reduce((sum, result) => sum + result.newBytes, 0),
      seconds: (components.clock.monotonic() - started) / 1000,
      warnings: tree.warnings
    }
  } finally {
    add.end()
  }
}

/** When it rejects, nothing more comes in. */
async function storeFiles (to: Destination, tree: SourceTree, options: PublishOptions): Promise<FileResult[]> {
  const results: FileResult[] = []
  let bytesDone = 0
  const told = (file: SourceFile) => (bytes: number): void => {
    bytesDone += bytes
    options.onProgress?.({ bytesDone, bytesTotal: tree.bytes, path: file.modelPath })
  }

  const isSmall = ({ file }: { file: SourceFile }): boolean => file.guard.size <= SMALL_BYTES_MAX
  const all = tree.files.map((file, position) => ({ file, position }))
  const small = all.filter(isSmall)
  const large = all.filter(entry => !isSmall(entry))
  const failed = new AbortController()
  const signal = options.signal === undefined ? failed.signal : AbortSignal.any([options.signal, failed.signal])
  const publisher = (): FilePublisher => new FilePublisher(to, { inPlace: options.inPlace ?? false, isGiven: options.isGiven ?? false, follow: options.follow ?? false }, signal)
  const work = async (by: FilePublisher, queue: Iterator<{ file: SourceFile, position: number }>): Promise<void> => {
    for (let next = queue.next(); next.done !== true; next = queue.next()) {
      const { file, position } = next.value
      results[position] = await by.publish(file, told(file))
      await options.onStored?.(file.guard.path)
    }
  }
  const workers: Array<Promise<void>> = []
  // Each large file fills a core; of the small ones many wait for the disk together.
  const largeQueue = large.values()
  for (let left = Math.min(Math.max(1, availableParallelism() - 1), 4, large.length); left > 0; left--) {
    const by = publisher()
    workers.push(work(by, largeQueue).finally(async () => { await by.stop() }))
  }
  const smallQueue = small.values()
  const bySmall = publisher()
  for (let left = Math.min(SMALL_FILES_AT_ONCE, small.length); left > 0; left--) workers.push(work(bySmall, smallQueue))
  try {
    await Promise.all(workers)
  } catch (error) {
    failed.abort(error)
    await Promise.allSettled(workers)
    throw error
  }
  return results
}

/** The model of all files of these models, whose blocks are here. Nothing is read or copied. Throws ModelNotFoundError, and as publish(). */
export async function combine (components: PublishComponents, cids: readonly string[], options: Pick<PublishOptions, 'signal'> = {}): Promise<string> {
  const files = new Map<string, NamedFile>()
  for (const cid of cids) {
    const model = components.store.model(cid)
    if (model === undefined) throw new ModelNotFoundError(`this node does not hold ${cid}, a part of the model that is put together`)
    for (const [position, entry] of model.manifest.value.files.entries()) {
      const file = model.files[position]
      if (file !== undefined) files.set(entry.path, { entry, index: encodeFileIndex(file.index) })
    }
  }
  return await name(components, `the model of ${cids.length} parts`, [...files.values()], options)
}

type NamedFile = Pick<FileResult, 'entry' | 'index'>

/** Names the files by a manifest, and puts the model into the store. */
async function name ({ store }: PublishComponents, what: string, files: readonly NamedFile[], { published = true, onNamed, signal }: PublishOptions): Promise<string> {
  const indexBytes = files.reduce((sum, { index }) => sum + index.bytes.length, 0)
  if (indexBytes > MODEL_INDEX_BYTES_MAX) {
    throw new LimitExceededError(`the file indexes of ${what} have ${indexBytes} bytes, and no node loads more than ${MODEL_INDEX_BYTES_MAX}; add it in parts`)
  }
  // In the order of the manifest.
  const sorted = [...files].sort((a, b) => (a.entry.path < b.entry.path ? -1 : 1))
  const manifest = encodeManifest({ version: 1, files: sorted.map(({ entry }) => entry) })
  const cid = manifest.cid.toString()
  await onNamed?.(cid)
  // Whole, unless something was withdrawn meanwhile: a file in place that changed, or a disk that lost it.
  await store.putModel({ manifest, indexes: sorted.map(({ index }) => index) }, { published, whole: true, signal })
  return cid
}

/** Publishes large files one after the other, or small ones beside each other, with its own slots and its own hash thread, made when first needed. */
class FilePublisher {
  readonly #store: ModelStore
  readonly #add: RunningAdd
  readonly #inPlace: boolean
  readonly #isGiven: boolean
  readonly #flags: number
  readonly #signal: AbortSignal
  readonly #slots = new SlotPool(BLOCKS_AHEAD, { shared: true })
  #thread: Sha256Thread | undefined

  constructor ({ store, add }: Destination, { inPlace, isGiven, follow }: { inPlace: boolean, isGiven: boolean, follow: boolean }, signal: AbortSignal) {
    this.#store = store
    this.#add = add
    this.#inPlace = inPlace
    this.#isGiven = isGiven
    this.#flags = constants.O_RDONLY | constants.O_NONBLOCK | (follow ? 0 : constants.O_NOFOLLOW)
    this.#signal = signal
  }

  async publish (file: SourceFile, onBytes: (bytes: number) => void): Promise<FileResult> {
    throwIfAborted(this.#signal)
    const { guard } = file
    if (this.#inPlace) {
      const index = await this.#hash(file, onBytes)
      return resultOf(file, index, await this.#store.referenceFile(index, guard, this.#add))
    }
    const add = this.#add
    const free = await this.#clone(file, { evict: false, add }) ?? await this.#store.importFile(guard.size, { evict: false, add })
    const held = free === undefined && this.#store.mayHold(guard.size) ? await this.#findHeld(file, onBytes) : undefined
    if (held !== undefined) return held
    const target = free ?? await this.#clone(file, { evict: true, add }) ?? await this.#store.importFile(guard.size, { add })
    try {
      const index = await this.#hash(file, onBytes, target)
      return resultOf(file, index, await target.commit(index))
    } catch (error) {
      await target.abort()
      throw error
    }
  }

  /** There is no room for a copy: it is read once to find out whether it is here already, before anything is evicted for it. */
  async #findHeld (file: SourceFile, onBytes: (bytes: number) => void): Promise<FileResult | undefined> {
    let told = 0
    const index = await this.#hash(file, bytes => {
      told += bytes
      onBytes(bytes)
    })
    if (await this.#store.heldFile(index.cid.toString(), this.#add) !== undefined) return resultOf(file, index, { newBytes: 0 })
    onBytes(-told) // it is read again
    return undefined
  }

  /** What is given goes as it is: copied, it would need its room twice. Else not of small files: to copy them costs no more than to try. */
  async #clone (file: SourceFile, room: ImportOptions): Promise<(FileImport & { path: string }) | undefined> {
    const { path, size } = file.guard
    let clone = this.#isGiven ? await this.#store.cloneFile(path, size, { ...room, isGiven: true }) : undefined
    if (clone === undefined) {
      if (size <= SMALL_BYTES_MAX) return undefined
      await (await this.#open(file)).close() // a clone that fails is the disk's fault, unless it is this
      clone = await this.#store.cloneFile(path, size, room)
    }
    try {
      if (clone !== undefined) checkUnchanged(file, await stat(path).catch(error => { throw unreadable(path, error) }))
    } catch (error) {
      await clone?.abort()
      throw error
    }
    return clone
  }

  /** Not what has taken its place meanwhile: a pipe, whose opening would wait for a writer, is told before it is read. */
  async #open (file: SourceFile): Promise<FileHandle> {
    const { path } = file.guard
    const handle = await open(path, this.#flags).catch(error => { throw systemCode(error) === 'ELOOP' ? changed(path) : unreadable(path, error) })
    try {
      checkUnchanged(file, await handle.stat())
      return handle
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** Of the user's file, whose bytes go to `target` too; or of a clone of it, which nobody changes. */
  async #hash (file: SourceFile, onBytes: (bytes: number) => void, target?: FileImport & { path?: string }): Promise<Encoded<FileIndex>> {
    const handle = target?.path === undefined ? await this.#open(file) : await open(target.path, 'r').catch(error => { throw unreadable(file.guard.path, error) })
    try {
      const index = await this.#hashAndStore(handle, file, target?.path === undefined ? target : undefined, onBytes)
      if (target?.path === undefined) checkUnchanged(file, await handle.stat())
      return index
    } finally {
      await handle.close()
    }
  }

  /** The pipeline. Without `target` the bytes are where they belong already. */
  async #hashAndStore (handle: FileHandle, file: SourceFile, target: FileImport | undefined, onBytes: (bytes: number) => void): Promise<Encoded<FileIndex>> {
    const { size, path } = file.guard
    const { chunker, sizes } = await planBlocks(file.modelPath, size, async (offset, length) => {
      const bytes = Buffer.alloc(length)
      return bytes.subarray(0, await readFully(handle, bytes, offset, path))
    })
    const sha256 = this.#sha256(size)
    const git = size > GIT_SHA1_SIZE_MAX ? undefined : gitBlobHash(size)
    const blocks = await pipe(
      readBlocks(handle, sizes, this.#slots, path, this.#signal),
      source => storeBlocks(source, { sha256, git }, target, onBytes),
      async source => {
        const cids: CID[] = []
        for await (const block of source) cids.push(block.cid)
        return cids
      }
    )
    return encodeFileIndex({ version: 1, size, sha256: await sha256.finish(), gitSha1: git?.digest(), chunker, blocks, sizes: [...sizes] })
  }

  #sha256 (size: number): { add: (bytes: Uint8Array) => Promise<void>, finish: () => Promise<Uint8Array> } {
    if (size <= SMALL_BYTES_MAX) {
      const hash = createHash('sha256')
      return { add: async bytes => { hash.update(bytes) }, finish: async () => new Uint8Array(hash.digest()) }
    }
    return this.#thread ??= new Sha256Thread()
  }

  async stop (): Promise<void> {
    await this.#thread?.stop()
  }
}

function resultOf ({ modelPath, guard }: SourceFile, index: Encoded<FileIndex>, { newBytes }: { newBytes: number }): FileResult {
  return { entry: { path: modelPath, size: guard.size, index: index.cid }, index, newBytes }
}

interface ReadBlock { slot: Slot, offset: number }

async function * readBlocks (handle: FileHandle, sizes: readonly number[], slots: SlotPool, path: string, signal: AbortSignal): AsyncGenerator<ReadBlock> {
  let offset = 0
  for (const size of sizes) {
    throwIfAborted(signal)
    const slot = await new Promise<Slot>(resolve => { slots.acquire(resolve) })
    try {
      const read = await readFully(handle, slot.prepare(offset, size), offset, path)
      if (read < size) throw changed(path)
    } catch (error) {
      slot.release()
      throw error
    }
    yield { slot, offset }
    offset += size
  }
}

/**
 * Hashes each block twice (BLAKE3 here, SHA-256 on the thread; small files a third time, for git) and stores it, all three at once, while the next one is
 * read. Yields in file order. Whatever happens, no slot is left in flight when it ends.
 */
async function * storeBlocks (
  source: AsyncIterable<ReadBlock>,
  { sha256, git }: { sha256: { add: (bytes: Uint8Array) => Promise<void> }, git: Hash | undefined },
  target: FileImport | undefined,
  onBytes: (bytes: number) => void
): AsyncGenerator<PublishedBlock> {
  const open: Array<Promise<PublishedBlock>> = []
  try {
    for await (const { slot, offset } of source) {
      const size = slot.bytes.length
      const hashed = sha256.add(slot.bytes)
      git?.update(slot.bytes)
      const written = target?.write(offset, slot)
      const cid = hashBlock(slot.bytes)
      const settled = Promise.allSettled([hashed, written]).then(outcomes => {
        slot.release()
        for (const outcome of outcomes) if (outcome.status === 'rejected') throw asError(outcome.reason)
        onBytes(size)
        return { cid, size }
      })
      settled.catch(() => undefined) // told when it is awaited below; until then it is not unhandled
      open.push(settled)
      const first = open.length >= BLOCKS_AHEAD - 1 ? open.shift() : undefined
      if (first !== undefined) yield await first
    }
    for (let next = open.shift(); next !== undefined; next = open.shift()) yield await next
  } finally {
    await Promise.allSettled(open)
  }
}

async function readFully (handle: FileHandle, into: Uint8Array, offset: number, path: string): Promise<number> {
  let filled = 0
  while (filled < into.length) {
    const { bytesRead } = await handle.read(into, filled, into.length - filled, offset + filled).catch(error => { throw unreadable(path, error) })
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return filled
}

function checkUnchanged ({ guard }: SourceFile, now: Pick<FileGuard, 'size' | 'mtimeMs' | 'ino'>): void {
  if (now.size !== guard.size || now.mtimeMs !== guard.mtimeMs || now.ino !== guard.ino) throw changed(guard.path)
}

function changed (path: string): Error {
  return new SourceChangedError(`${path} changed while it was added; add again when nobody writes to it`)
}

function unreadable (path: string, error: unknown): Error {
  const why = systemCode(error) ?? asError(error).message
  return new UnreadableSourceError(`cannot read ${path} (${why}); check that the daemon's user may read it`, { cause: error })
}
