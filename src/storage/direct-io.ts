import { open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError, DiskError, PAGE_BYTES, asError, systemCode, type Logger } from '../base/index.ts'
import type { Edge, Edges } from './edges.ts'
import { writeFully, writeOnce, type HandlePool } from './handles.ts'
import { SlotPool, type Slot } from './slots.ts'

/** Below this a block goes through the page cache whole: a small direct write costs more than the copy it saves. */
const DIRECT_BYTES_MIN = 128 * 1024
/** What a volume, or one file of it, answers that does not do O_DIRECT, or not with our alignment. */
const REFUSED = new Set(['EINVAL', 'EOPNOTSUPP', 'ENOTSUP'])

export type DirectIoMode = 'auto' | 'on' | 'off'

/**
 * Writes blocks around the page cache where the volume allows it. This file owns O_DIRECT; the rest of the store does
 * not know. A block lies in its slot at the same offset modulo 4 KiB as in its file, so its whole pages go out as they
 * lie, direct. Its ragged edges, each part of a page shared with a neighbour, wait for that neighbour, which writes the
 * page with its own (edges.ts); if it does not come in time, they go through the page cache.
 *
 * Why the two kinds may be mixed on one file: no page is written both ways at the same time, and Linux holds the inode's lock from
 * before a synchronous direct write drops the cached pages until after it has dropped them again; a buffered write
 * waits for that lock (ext4, xfs, btrfs). So a large folio that spans an edge and an inside cannot be dirty while the
 * inside is written, and readers, mapped or not, never keep a stale page. Writing to a mapping would break this:
 * files of the store are only ever mapped for reading.
 */
export class BlockWriter {
  readonly #handles: HandlePool
  readonly #mode: DirectIoMode
  readonly #logger: Logger
  #direct = false

  constructor (handles: HandlePool, mode: DirectIoMode, logger: Logger) {
    this.#handles = handles
    this.#mode = mode
    this.#logger = logger
  }

  get direct (): boolean { return this.#direct }

  /** Finds out whether the volume of this directory does O_DIRECT. Throws ConfigError when it must and does not. */
  async probe (directory: string): Promise<void> {
    if (this.#mode === 'off') return
    const path = join(directory, 'direct-io-probe')
    const refusal = await this.#tryDirect(path)
    this.#direct = refusal === undefined
    if (refusal === undefined) return
    if (this.#mode === 'on') {
      throw new ConfigError(`storage.directIo is on and the volume of ${directory} refuses O_DIRECT (${refusal.message}); set it to auto`, { cause: refusal })
    }
    this.#logger.info({ directory, error: refusal.message }, 'the volume refuses O_DIRECT; blocks are written through the page cache')
  }

  /**
   * Writes `slot.bytes` at `offset`, but for edges that may wait among `edges` until `flush`. Which those are is settled when this returns its promise. The rest of the slot's slab is overwritten.
   * When it resolves or rejects, nothing of the slot is in use any more.
   */
  async write (path: string, offset: number, slot: Slot, edges: Edges): Promise<void> {
    const { bytes, lead } = slot
    if (lead !== offset % PAGE_BYTES) throw new RangeError(`the slot was prepared for another offset than ${offset}: its lead is ${lead}`)
    const start = Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES
    const end = Math.floor((offset + bytes.length) / PAGE_BYTES) * PAGE_BYTES
    if (!this.#direct || end - start < DIRECT_BYTES_MIN) {
      await this.#buffered(path, offset, bytes)
      return
    }
    const parts: Array<Promise<void>> = []
    const head = this.#edge(path, edges, offset, bytes.subarray(0, start - offset), { offset: start - PAGE_BYTES, end: offset }, parts)
    const tail = this.#edge(path, edges, end, bytes.subarray(end - offset), { offset: offset + bytes.length, end: end + PAGE_BYTES }, parts)
    if (head !== undefined) slot.slab.set(head.bytes, 0)
    if (tail !== undefined) slot.slab.set(tail.bytes, lead + bytes.length)
    const from = head?.offset ?? start
    const to = tail === undefined ? end : end + PAGE_BYTES
    const inside = this.#inside(path, from, slot.slab.subarray(lead + from - offset, lead + to - offset))
    const carried = [head, tail].filter(edge => edge !== undefined)
    if (carried.length > 0) edges.carry(inside, carried)
    parts.push(inside)
    // All, not the first to fail: the slot must not be released under a write.
    for (const outcome of await Promise.allSettled(parts)) if (outcome.status === 'rejected') throw asError(outcome.reason)
  }

  /** Writes the edges of a file that wait. Throws as well when a write failed that had taken some along. */
  async flush (path: string, edges: Edges): Promise<void> {
    for (const edge of edges.takeAll()) edges.carry(this.#buffered(path, edge.offset, edge.bytes), [edge])
    await Promise.all(edges.carriers())
  }

  /** The neighbour's edge that makes a whole page of this one; without it this one is kept, or written as one of `parts`. */
  #edge (path: string, edges: Edges, offset: number, bytes: Uint8Array, neighbour: { offset: number, end: number }, parts: Array<Promise<void>>): Edge | undefined {
    if (bytes.length === 0) return undefined
    const found = edges.take(neighbour.offset, neighbour.end)
    if (found === undefined && !edges.keep(offset, bytes)) parts.push(this.#buffered(path, offset, bytes))
    return found
  }

  async #inside (path: string, offset: number, bytes: Uint8Array): Promise<void> {
    let written = 0
    try {
      written = await this.#handles.use(path, 'direct', async handle => await writeOnce(handle, bytes, offset))
    } catch (error) {
      if (!REFUSED.has(systemCode(error) ?? '')) throw error
      if (this.#direct) this.#logger.warn({ path, error: asError(error).message }, 'a direct write was refused; from now on blocks are written through the page cache')
      this.#direct = false
    }
    // A short write may end anywhere: the rest goes the other way, which also tells why it was short.
    if (written < bytes.length) await this.#buffered(path, offset + written, bytes.subarray(written))
  }

  async #buffered (path: string, offset: number, bytes: Uint8Array): Promise<void> {
    await this.#handles.use(path, 'write', async handle => { await writeFully(handle, bytes, offset) })
  }

  async #tryDirect (path: string): Promise<Error | undefined> {
    const slab = new SlotPool(1).tryAcquire()?.prepare(0, PAGE_BYTES)
    if (slab === undefined) return undefined
    try {
      await (await open(path, 'w')).close()
      await this.#handles.use(path, 'direct', async handle => { await handle.write(slab, 0, slab.length, 0) })
      return undefined
    } catch (error) {
      const code = systemCode(error) ?? ''
      if (REFUSED.has(code)) return asError(error)
      if (code === 'ENOSPC' || code === 'EDQUOT') return undefined // full is not refused, and a block's own write will tell
      throw new DiskError(`cannot write to ${path}: ${asError(error).message}`, { cause: error })
    } finally {
      await this.#handles.forget(path)
      await unlink(path).catch(() => undefined)
    }
  }
}
