import { constants } from 'node:fs'
import { chmod, copyFile, link, open, rename, rm, stat, statfs, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { DiskError, STORE_HANDLES_MAX, VOLUME_RESERVE_BYTES_MAX, makeDirectories, syncDirectory, systemCode, type Logger, type Random } from '../base/index.ts'
import type { Model } from '../model/types.ts'
import { SMALL_FILE_BYTES_MAX, type ByteStore, type ImportTarget, type Leftovers, type SavedModel } from './byte-store.ts'
import { LINKS_AT_ONCE, Lock, inParallel } from './concurrency.ts'
import { BlockWriter, type DirectIoMode } from './direct-io.ts'
import { diskError } from './disk-errors.ts'
import { Edges } from './edges.ts'
import { HandlePool, readFully, type Lease } from './handles.ts'
import { checkVersion, layoutOf, makeLayout, type Layout } from './layout.ts'
import { clearImports, findLeftovers, findStrangers } from './leftovers.ts'
import { NO_HARD_LINK, isLinked, linkInto, sameFile, unlinkFrom } from './links.ts'
import { ProcessLock } from './process-lock.ts'
import type { FileRecord, ModelRecord } from './records.ts'
import { Sidecars } from './sidecar.ts'
import type { Slot } from './slots.ts'
import { SmallImport } from './small-import.ts'

/** What copyFile with FICLONE_FORCE answers where the file system cannot reflink, or not from there to here. */
const NO_REFLINK = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EXDEV', 'EINVAL', 'ENOTTY', 'ENOSYS'])
/** Of files that are not ours, so many are named. */
const STRANGERS_TOLD = 10
/** Syncs at once: as many as libuv has threads. */
const SYNCS_MAX = 4

/**
 * What was written to a path since it was last synced: an open descriptor, because the kernel tells a failed write-back to those who
 * had it open, and the edges that wait.
 */
interface Unsynced { lease: Promise<Lease>, readonly edges: Edges }

export interface DiskBytesInit { directory: string, directIo: DirectIoMode, random: Random, logger: Logger }

/** Files on a disk, laid out as layout.ts says. */
export class DiskBytes implements ByteStore {
  readonly handles = new HandlePool(STORE_HANDLES_MAX)
  readonly #layout: Layout
  readonly #writer: BlockWriter
  readonly #sidecars: Sidecars
  readonly #random: Random
  readonly #logger: Logger
  readonly #dirty = new Map<string, Unsynced>()
  /** By path: whether it has to be closed against writing when it is adopted. */
  readonly #imports = new Map<string, boolean>()
  /** Two of them would count each other's name as somebody else's. */
  readonly #recovering = new Lock()
  #lock: ProcessLock | undefined
  /** What files/ was at the start: a directory that is moved, or whose volume is gone, is another one, or none. */
  #place: { dev: number, ino: number } | undefined
  /** The umask, or the directory, takes from a new file's mode that others may read it. */
  #masked = true

  constructor ({ directory, directIo, random, logger }: DiskBytesInit) {
    this.#layout = layoutOf(directory)
    this.#writer = new BlockWriter(this.handles, directIo, logger)
    this.#sidecars = new Sidecars(this.#layout.meta, logger)
    this.#random = random
    this.#logger = logger
  }

  get catalogPath (): string { return this.#layout.catalog }
  get directIo (): boolean { return this.#writer.direct }
  pathOf (key: string): string { return `${this.#layout.files}/${key}` } // asked for at each block, and join() normalizes
  directoryOf (cid: string): string { return join(this.#layout.models, cid) }

  async start (): Promise<void> {
    try {
      await checkVersion(this.#layout)
      await makeDirectories(this.#layout.directory)
      this.#lock = new ProcessLock(this.#layout)
      await makeLayout(this.#layout) // looks at the version again: it may have been upgraded while the lock was someone else's
      this.#place = await stat(this.#layout.files)
      await clearImports(this.#layout)
      const strangers = await findStrangers(this.#layout)
      if (strangers.length > 0) this.#logger.warn({ count: strangers.length, paths: strangers.slice(0, STRANGERS_TOLD) }, 'not of this store, and left alone: files that somebody else put into its directories')
      await this.#writer.probe(this.#layout.tmp)
      this.#masked = await this.#masksModes()
    } catch (error) {
      await this.stop()
      throw diskError(error, `cannot open the data directory ${this.#layout.directory}`)
    }
  }

  async stop (): Promise<void> {
    await this.#releaseDirty([...this.#dirty.keys()])
    await this.handles.close()
    this.#lock?.[Symbol.dispose]()
    this.#lock = undefined
  }

  async space (): Promise<{ freeBytes: number, reserveBytes: number }> {
    const { bavail, blocks, bsize } = await statfs(this.#layout.files)
    return { freeBytes: bavail * bsize, reserveBytes: Math.min(VOLUME_RESERVE_BYTES_MAX, Math.floor(blocks * bsize / 100)) }
  }

  async probe (): Promise<void> {
    const path = join(this.#layout.tmp, 'probe')
    try {
      const handle = await open(path, 'w')
      try {
        await handle.writeFile(Buffer.alloc(64 * 1024, 1))
        await handle.datasync()
      } finally {
        await handle.close()
      }
    } finally {
      await unlink(path).catch(() => undefined)
    }
  }

  async create (file: FileRecord): Promise<void> {
    const path = this.pathOf(file.key)
    file.closed = false
    await this.#forget(path)
    const handle = await open(path, 'wx', 0o644).catch(async error => {
      if (systemCode(error) !== 'EEXIST') throw error
      await unlink(path)
      return await open(path, 'wx', 0o644)
    })
    try {
      await handle.truncate(file.size)
    } finally {
      await handle.close()
    }
    await this.#forget(path)
  }

  async syncNames (): Promise<void> { await syncDirectory(this.#layout.files) }

  async checkPlace (): Promise<void> {
    const { files } = this.#layout
    const { dev, ino } = await stat(files).catch(error => { throw moved(files, error) })
    if (this.#place !== undefined && (dev !== this.#place.dev || ino !== this.#place.ino)) throw moved(files)
  }

  async recover (file: FileRecord): Promise<boolean> {
    return await this.#recovering.run(async () => {
      const path = this.pathOf(file.key)
      const names = [...file.models].flatMap(model => model.pathsOf(file).map(name => join(this.directoryOf(model.cid), name)))
      const found = await sameFile([path, ...names], file.size)
      if (found === undefined || found === path) return found === path
      if (!await link(found, path).then(() => true, () => false)) return false
      await this.#forget(path)
      await this.syncNames()
      return true
    })
  }

  async sizeOf (file: FileRecord): Promise<number | undefined> {
    try {
      return (await stat(this.pathOf(file.key))).size
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined
      throw error
    }
  }

  async restoreSize (file: FileRecord): Promise<void> {
    const path = this.pathOf(file.key)
    file.closed = false
    await chmod(path, 0o644).catch(error => { if (systemCode(error) !== 'ENOENT') throw error })
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644)
    try {
      await handle.truncate(file.size)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await this.syncNames()
  }

  async write (file: FileRecord, offset: number, slot: Slot): Promise<void> {
    await this.#write(this.pathOf(file.key), offset, slot)
  }

  async read (file: FileRecord, offset: number, into: Uint8Array): Promise<number> {
    return await this.#read(this.pathOf(file.key), offset, into)
  }

  async sync (files: Iterable<FileRecord>): Promise<void> {
    await inParallel(SYNCS_MAX, Array.from(files, file => this.pathOf(file.key)), async path => { await this.#sync(path) })
  }

  async complete (file: FileRecord, models: Iterable<ModelRecord>): Promise<void> {
    const target = this.pathOf(file.key)
    if (!file.closed) await chmod(target, 0o444)
    file.closed = true
    for (const model of models) {
      for (const path of model.pathsOf(file)) await linkInto(target, join(this.directoryOf(model.cid), path))
    }
  }

  async reopen (file: FileRecord): Promise<void> {
    file.closed = false
    for (const model of file.models) {
      for (const path of model.pathsOf(file)) await unlinkFrom(this.directoryOf(model.cid), path)
    }
    await chmod(this.pathOf(file.key), 0o644).catch(error => { if (systemCode(error) !== 'ENOENT') throw error })
  }

  async hasLinks (model: ModelRecord, files: readonly FileRecord[]): Promise<boolean> {
    let linked = true
    await inParallel(LINKS_AT_ONCE, [...files], async file => {
      for (const path of model.pathsOf(file)) if (linked && !await isLinked(this.pathOf(file.key), join(this.directoryOf(model.cid), path))) linked = false
    })
    return linked
  }

  async remove (file: FileRecord): Promise<void> {
    const path = this.pathOf(file.key)
    await this.#forget(path)
    await unlink(path).catch(error => { if (systemCode(error) !== 'ENOENT') throw error }) // rm() would look at each of thousands first
    await this.#forget(path)
  }

  async startImport (size: number, whole: boolean): Promise<ImportTarget> {
    const small = size <= SMALL_FILE_BYTES_MAX
    const asClosed = whole && small && !this.#masked
    const path = this.#importPath(whole && !asClosed)
    if (small) return new SmallImport({ path, size, mode: asClosed ? 0o444 : 0o644, letGo: () => this.#imports.delete(path) })
    try {
      const handle = await open(path, 'wx', 0o644)
      try {
        await handle.truncate(size)
      } finally {
        await handle.close()
      }
    } catch (error) {
      this.#imports.delete(path)
      await rm(path, { force: true })
      throw error
    }
    return this.#target(path)
  }

  async clone (source: string, size: number, { isGiven }: { isGiven: boolean }): Promise<ImportTarget | undefined> {
    const path = this.#importPath(false)
    const target = this.#target(path)
    try {
      if (isGiven) await link(source, path)
      else await copyFile(source, path, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL)
      await chmod(path, 0o444) // it has the source's mode
      if ((await stat(path)).size === size) return target
    } catch (error) {
      await target.discard()
      if ((isGiven ? NO_HARD_LINK : NO_REFLINK).has(systemCode(error) ?? '')) return undefined
      throw error
    }
    await target.discard() // it changed its size meanwhile: who copies it by hand will notice
    return undefined
  }

  async adopt (imports: Array<{ target: ImportTarget, key: string }>): Promise<void> {
    await inParallel(LINKS_AT_ONCE, imports, async ({ target, key }) => {
      const path = this.pathOf(key)
      if (target.path === undefined) throw new TypeError('an import of another store')
      const toClose = this.#imports.get(target.path)
      if (toClose === undefined) return // its name is the file's already
      await this.#forget(path)
      await this.handles.forget(target.path)
      if (toClose) await chmod(target.path, 0o444)
      await rename(target.path, path)
      this.#imports.delete(target.path)
      await this.#forget(path)
    })
    await syncDirectory(this.#layout.files)
  }

  async saveModel (model: ModelRecord, content: Model): Promise<void> { await this.#sidecars.saveModel(model, content) }
  async saveFlags (model: ModelRecord): Promise<void> { await this.#sidecars.saveFlags(model) }
  savedModels (): AsyncIterable<SavedModel> { return this.#sidecars.read() }

  async removeModel (model: ModelRecord): Promise<void> {
    await this.#sidecars.remove(model.cid)
    await rm(this.directoryOf(model.cid), { recursive: true, force: true })
  }

  async leftovers (known: { files: ReadonlyMap<string, FileRecord>, models: ReadonlyMap<string, ModelRecord> }): Promise<Leftovers> {
    await this.checkPlace()
    if (await this.#sidecars.holdBack(known.models)) return { bytes: 0, remove: async () => 0 }
    return await findLeftovers(this.#layout, (place, name) => {
      if (place === 'files') return known.files.get(name)?.inPlace === false
      if (place === 'tmp') return name === 'probe' || this.#imports.has(join(this.#layout.tmp, name))
      return known.models.has(place === 'meta' ? name.replace(/\..*$/, '') : name)
    }, this.#logger)
  }

  async #masksModes (): Promise<boolean> {
    const path = join(this.#layout.tmp, 'mode-probe')
    try {
      const handle = await open(path, 'w', 0o444)
      try {
        return ((await handle.stat()).mode & 0o777) !== 0o444
      } finally {
        await handle.close()
      }
    } catch {
      return true // a full disk: its modes are set one by one
    } finally {
      await unlink(path).catch(() => undefined)
    }
  }

  #importPath (toClose: boolean): string {
    const path = join(this.#layout.tmp, `import-${Buffer.from(this.#random.bytes(12)).toString('hex')}`)
    this.#imports.set(path, toClose)
    return path
  }

  #target (path: string): ImportTarget {
    return {
      path,
      write: async (offset, slot) => { await this.#write(path, offset, slot) },
      read: async (offset, into) => {
        const dirty = this.#dirty.get(path)
        if (dirty !== undefined) await this.#writer.flush(path, dirty.edges)
        return await this.#read(path, offset, into)
      },
      sync: async () => { await this.#sync(path) },
      discard: async () => {
        if (!this.#imports.delete(path)) return
        await this.#forget(path)
        await rm(path, { force: true })
      }
    }
  }

  async #write (path: string, offset: number, slot: Slot): Promise<void> {
    for (;;) {
      let dirty = this.#dirty.get(path)
      if (dirty === undefined) this.#dirty.set(path, dirty = { lease: this.handles.acquire(path, 'write'), edges: new Edges() })
      const { lease } = dirty
      try {
        await lease
      } catch (error) {
        if (this.#dirty.get(path) === dirty) this.#dirty.delete(path)
        throw error
      }
      // Synced, or another file's, meanwhile: an edge that is kept there now would never be written.
      if (this.#dirty.get(path) !== dirty) continue
      await this.#writer.write(path, offset, slot, dirty.edges)
      return
    }
  }

  async #read (path: string, offset: number, into: Uint8Array): Promise<number> {
    return await this.handles.use(path, 'read', async handle => await readFully(handle, into, offset))
  }

  async #sync (path: string): Promise<void> {
    const dirty = this.#dirty.get(path)
    this.#dirty.delete(path) // what is written from here on belongs to the next sync
    const lease = await (dirty?.lease ?? this.handles.acquire(path, 'read')) // a complete file does not open for writing
    try {
      if (dirty !== undefined) await this.#writer.flush(path, dirty.edges)
      await lease.handle.datasync()
    } catch (error) {
      // This descriptor has told of the failure and will not do so again: whoever writes next shall have another. What was written
      // meanwhile may be of a file made anew, and keeps its edges.
      const next = this.#dirty.get(path)
      await next?.lease.then(({ release }) => { release() }, () => undefined)
      await this.handles.forget(path)
      if (next !== undefined && this.#dirty.get(path) === next) {
        next.lease = this.handles.acquire(path, 'write')
        next.lease.catch(() => undefined) // told to who writes or syncs next
      }
      throw error
    } finally {
      lease.release()
    }
  }

  /**
   * Nothing of what was at this path is open or waits to be written. Who puts another file there, or none, calls it once more
   * after that: a read that began in between has opened the old one, and left it in the pool.
   */
  async #forget (path: string): Promise<void> {
    await this.#releaseDirty([path])
    await this.handles.forget(path)
  }

  async #releaseDirty (paths: string[]): Promise<void> {
    for (const path of paths) {
      const dirty = this.#dirty.get(path)
      this.#dirty.delete(path)
      await dirty?.lease.then(({ release }) => { release() }, () => undefined)
    }
  }
}

function moved (files: string, cause?: unknown): DiskError {
  return new DiskError(`${files} is not the directory that it was when this node started: it was moved, or its volume is not mounted. Put it back, or start again where it is`, { cause })
}
