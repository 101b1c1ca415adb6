/**
 * One model on its way from the upstream to this disk:
 *
 *     parts/<hash>    what came of a file so far, under the name of its content
 *     files/<path>    the files that are whole, and are what the upstream says
 *     staging/<path>  those that are being published (instalments.ts)
 *
 * What is here when it is cut off, by whomever, is gone on with later. Nothing is published from here before all is right.
 */
import { constants } from 'node:fs'
import { link, mkdir, open, rm, rmdir, stat, type FileHandle } from 'node:fs/promises'
import type { Hash } from 'node:crypto'
import { dirname, join } from 'node:path'
import {
  DiskError, MiB, OutOfSpaceError, Semaphore, ShoalError, UPSTREAM_FILES_AT_ONCE, UPSTREAM_HEADS_MAX, UPSTREAM_HEAD_BYTES, UpstreamBusyError, UpstreamMismatchError, UpstreamRefusedError,
  asError, ifThere, sleep, systemCode, throwIfAborted, type Clock, type Logger
} from '../base/index.ts'
import type { LocalFiles } from './components.ts'
import type { Caller, UpstreamFile, UpstreamModel } from './types.ts'
import { bytesOf, checkHash, contentOf, hashFor } from './upstream-model.ts'
import type { Upstream } from './upstream.ts'

export interface DownloadComponents { upstream: Pick<Upstream, 'read' | 'url'>, clock: Clock, logger: Logger, local: LocalFiles }
export interface DownloadInit {
  model: UpstreamModel
  caller: Caller
  /** Where it comes to; made when it is not there. */
  directory: string
  /** Files that need not come: they are published already. */
  published: ReadonlySet<string>
  /** This file is whole at this place, and its hash was compared. */
  arrived: (path: string, place: string) => void
  signal: AbortSignal
}

/** Failures of one file in a row, with nothing received in between. */
const ATTEMPTS = 5
const PAUSE_FIRST_MS = 500
const PAUSE_MAX_MS = 8_000
/** Longer is not waited for what the upstream says to wait: the fetch fails, and is begun again by who asks then. */
const BUSY_PATIENCE_MS = 60_000
const READ_BACK_BYTES = 1 * MiB

/** One content, and the paths where it stands. */
interface Part {
  readonly file: UpstreamFile
  readonly paths: string[]
  /** Bytes that are on disk. */
  bytes: number
  whole: boolean
}

export class Download {
  readonly #components: DownloadComponents
  readonly #init: DownloadInit
  readonly #parts = new Map<string, Part>()
  readonly #byPath = new Map<string, Part>()

  constructor (components: DownloadComponents, init: DownloadInit) {
    this.#components = components
    this.#init = init
    for (const file of init.model.files) {
      const part = this.#parts.get(contentOf(file)) ?? { file, paths: [], bytes: 0, whole: false }
      part.paths.push(file.path)
      this.#parts.set(contentOf(file), part)
      this.#byPath.set(file.path, part)
    }
  }

  /** The directory that is whole when run() resolves. */
  get files (): string { return placesOf(this.#init.directory).files }
  get bytesTotal (): number { return bytesOf(this.#init.model) }
  get bytesDone (): number {
    let bytes = 0
    for (const part of this.#parts.values()) bytes += part.bytes * part.paths.length
    return bytes
  }

  /** What earlier attempts have left here. Before run(). */
  async look (): Promise<void> {
    for (const part of this.#parts.values()) await this.#look(part)
  }

  /** What is to come into the store still, and how much of it lies here, to go there without being copied: each content once. */
  get room (): { bytes: number, hereBytes: number } {
    const parts = [...this.#parts.values()].filter(part => !part.paths.every(path => this.#init.published.has(path)))
    const sum = (of: (part: Part) => number): number => parts.reduce((bytes, part) => bytes + of(part), 0)
    return { bytes: sum(part => part.file.size), hereBytes: sum(part => part.bytes) }
  }

  /**
   * Throws UpstreamError, UpstreamTimeoutError, UpstreamBusyError, UpstreamRefusedError, UpstreamMismatchError, OutOfSpaceError,
   * DiskError, and the signal's reason.
   */
  async run (): Promise<void> {
    const failed = new AbortController()
    const signal = AbortSignal.any([this.#init.signal, failed.signal])
    try {
      for (const directory of ['parts', 'files']) await mkdir(join(this.#init.directory, directory), { recursive: true, mode: 0o700 })
      const parts = [...this.#parts.values()].sort((a, b) => a.file.size - b.file.size)
      for (const part of parts) if (part.bytes === 0) await this.#copy(part, signal)
      // The small ones first, and the beginnings of the others: somebody may be waiting for any of them.
      const heads = parts.slice(0, UPSTREAM_HEADS_MAX)
      const slots = new Semaphore(UPSTREAM_FILES_AT_ONCE)
      for (const pass of [heads.map(part => ({ part, end: Math.min(part.file.size, UPSTREAM_HEAD_BYTES) })), parts.map(part => ({ part, end: part.file.size }))]) {
        const work = pass.filter(({ part, end }) => !part.whole && (part.bytes < end || end === part.file.size))
        const running = work.map(async ({ part, end }) => { await slots.run(async () => { await this.#fetch(part, end, signal) }, signal) })
        await Promise.all(running).catch(async error => {
          failed.abort(asError(error))
          await Promise.allSettled(running)
          throw error
        })
      }
    } catch (error) {
      throwIfAborted(this.#init.signal)
      throw diskError(error, this.#init.directory)
    }
  }

  /** What is here of a file, from `offset`: as it came, and nobody has compared its hash yet unless it is whole. */
  async peek (path: string, offset: number, length: number): Promise<Uint8Array | undefined> {
    const part = this.#byPath.get(path)
    if (part === undefined || offset >= part.bytes) return undefined
    const bytes = Buffer.alloc(Math.min(length, part.bytes - offset))
    for (const place of [this.#partPath(part), join(this.files, path), join(placesOf(this.#init.directory).staging, path)]) {
      const handle = await open(place, 'r').catch(() => undefined)
      if (handle === undefined) continue
      try {
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, offset)
        return bytes.subarray(0, bytesRead)
      } finally {
        await handle.close()
      }
    }
    return undefined
  }

  async remove (): Promise<void> { await removeDownload(this.#init.directory) }

  #partPath (part: Part): string { return join(this.#init.directory, 'parts', contentOf(part.file)) }

  async #look (part: Part): Promise<void> {
    const whole = await Promise.all(part.paths.map(async path => this.#init.published.has(path) || (await ifThere(stat(join(this.files, path))))?.size === part.file.size))
    part.whole = whole.every(Boolean)
    const begun = part.whole ? undefined : await ifThere(stat(this.#partPath(part)))
    // It has another name, which a crash has kept it from losing: that may be in the store by now, where nobody writes to it.
    const isElsewhere = begun !== undefined && begun.nlink > 1
    if (isElsewhere) await rm(this.#partPath(part))
    part.bytes = part.whole ? part.file.size : isElsewhere ? 0 : begun?.size ?? 0
  }

  /** What is in another model here does not have to come: of a new commit, most files mostly. It is compared as all else is. */
  async #copy (part: Part, signal: AbortSignal): Promise<void> {
    const source = this.#components.local(part.file, { signal })
    if (source === undefined) return
    const handle = await open(this.#partPath(part), 'w', 0o600)
    try {
      for await (const bytes of source) {
        for (let written = 0; written < bytes.length;) written += (await handle.write(bytes, written, bytes.length - written)).bytesWritten
        part.bytes += bytes.length
      }
    } catch (error) {
      if (systemCode(error) !== undefined) throw error // of the disk that is written to, too
      throwIfAborted(signal)
      this.#components.logger.info({ path: part.file.path, error: asError(error).message }, 'what is here of a file cannot be read, and it is fetched')
    } finally {
      await handle.close()
    }
  }

  /** Up to `end`, again and again from where it broke off. At the end of the file, its hash is compared and it gets its names. */
  async #fetch (part: Part, end: number, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#components
    const { file } = part
    let resumed = part.bytes > 0
    for (let failures = 0; ;) {
      const before = part.bytes
      try {
        await this.#attempt(part, end, signal)
        return
      } catch (error) {
        throwIfAborted(signal)
        if (error instanceof UpstreamMismatchError && resumed) {
          // What an earlier attempt left may have been at fault.
          resumed = false
          logger.warn({ path: file.path, error: error.message }, 'a file that was gone on with is fetched anew')
          continue
        }
        const pauseMs = pauseFor(error, failures)
        failures = part.bytes > before ? 1 : failures + 1
        if (failures >= ATTEMPTS || pauseMs === undefined) throw error
        logger.info({ path: file.path, bytes: part.bytes, error: asError(error).message }, 'a file from the upstream is gone on with')
        await sleep(clock, pauseMs, signal)
      }
    }
  }

  async #attempt (part: Part, end: number, signal: AbortSignal): Promise<void> {
    const { upstream } = this.#components
    const { model, caller } = this.#init
    const { file } = part
    const path = this.#partPath(part)
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
    try {
      let { size } = await handle.stat()
      if (size > file.size) await handle.truncate(size = 0)
      const hash = hashFor(file)
      // Of a file that will be whole, all goes through the hash: what is here already, too.
      if (end === file.size) await readBack(handle, size, hash)
      part.bytes = size
      if (size < end) {
        const { from, body } = await upstream.read(model, file, { offset: size, end }, caller, signal)
        await this.#write(part, handle, { from, body, end, hash })
      }
      if (end < file.size) return
      try {
        checkHash(model, file, hash, upstream.url)
      } catch (error) {
        await handle.truncate(part.bytes = 0)
        throw error
      }
      await handle.datasync()
    } finally {
      await handle.close()
    }
    await this.#name(part, path)
  }

  async #write (part: Part, handle: FileHandle, { from, body, end, hash }: { from: number, body: AsyncGenerator<Buffer>, end: number, hash: Hash }): Promise<void> {
    let at = from
    for await (const chunk of body) {
      // An upstream that knows no ranges begins anew: what is here already is passed over.
      const skip = Math.min(chunk.length, Math.max(0, part.bytes - at))
      at += chunk.length
      const bytes = chunk.subarray(skip, Math.max(skip, chunk.length - Math.max(0, at - end)))
      for (let written = 0; written < bytes.length;) written += (await handle.write(bytes, written, bytes.length - written, part.bytes + written)).bytesWritten
      hash.update(bytes)
      part.bytes += bytes.length
      if (part.bytes >= end) return
    }
  }

  async #name (part: Part, from: string): Promise<void> {
    const places = part.paths.map(path => join(this.files, path))
    for (const place of places) {
      await mkdir(dirname(place), { recursive: true })
      await rm(place, { force: true })
      await link(from, place)
    }
    await rm(from)
    part.whole = true
    for (const path of part.paths) this.#init.arrived(path, join(this.files, path))
  }
}

/** Where files are that are whole, and those that are being published. */
export function placesOf (directory: string): { files: string, staging: string } {
  return { files: join(directory, 'files'), staging: join(directory, 'staging') }
}

/** What came so far; not what is noted of it beside. */
export async function removeDownload (directory: string): Promise<void> {
  for (const part of ['parts', 'files', 'staging']) await rm(join(directory, part), { recursive: true, force: true })
  await rmdir(directory).catch(() => undefined) // there is more, or nothing
}

/** Undefined: no use to try again. */
function pauseFor (error: unknown, failures: number): number | undefined {
  if (error instanceof UpstreamBusyError) return error.retryAfterMs <= BUSY_PATIENCE_MS ? Math.max(error.retryAfterMs, PAUSE_FIRST_MS) : undefined
  if (error instanceof UpstreamRefusedError || error instanceof UpstreamMismatchError || systemCode(error) !== undefined) return undefined
  return Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** failures)
}

async function readBack (handle: FileHandle, bytes: number, hash: Hash): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(READ_BACK_BYTES, Math.max(1, bytes)))
  for (let at = 0; at < bytes;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - at), at)
    if (bytesRead === 0) return
    hash.update(buffer.subarray(0, bytesRead))
    at += bytesRead
  }
}

function diskError (error: unknown, directory: string): Error {
  if (error instanceof ShoalError) return error
  const code = systemCode(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return new OutOfSpaceError(`no space is left in ${directory} for what comes from the upstream; make room there, with: shoal rm CID`, { cause: error })
  return code === undefined ? asError(error) : new DiskError(`cannot keep in ${directory} what comes from the upstream: ${asError(error).message}`, { cause: error })
}
