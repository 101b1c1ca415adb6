import { STORE_HANDLES_MAX } from '../base/index.ts'
import type { ByteStore, ImportTarget, Leftovers, SavedModel } from './byte-store.ts'
import { HandlePool } from './handles.ts'
import type { FileRecord } from './records.ts'
import type { Slot } from './slots.ts'

/** Pieces of one file by where they start. Blocks are written whole and never overlap, so a map of them is the file. */
class Pieces {
  readonly #pieces = new Map<number, Uint8Array>()
  /** The starts in rising order; undefined when they have to be sorted again. */
  #starts: number[] | undefined

  write (offset: number, bytes: Uint8Array): void {
    this.#pieces.set(offset, Uint8Array.from(bytes))
    this.#starts = undefined
  }

  /** Holes read as zeros, like those of a sparse file. */
  read (offset: number, into: Uint8Array): number {
    const whole = this.#pieces.get(offset)
    if (whole?.length === into.length) {
      into.set(whole)
      return into.length
    }
    into.fill(0)
    this.#starts ??= [...this.#pieces.keys()].sort((a, b) => a - b)
    for (const start of this.#starts) {
      const piece = this.#pieces.get(start)
      if (piece === undefined || start + piece.length <= offset) continue
      if (start >= offset + into.length) break
      const from = Math.max(offset, start)
      const to = Math.min(offset + into.length, start + piece.length)
      into.set(piece.subarray(from - start, to - start), from - offset)
    }
    return into.length
  }
}

/** Files in memory. Everything is durable until the process ends, so there is nothing to sync, link or rebuild. */
export class MemoryBytes implements ByteStore {
  readonly catalogPath = ':memory:'
  readonly directIo = false
  readonly handles = new HandlePool(STORE_HANDLES_MAX)
  readonly #files = new Map<string, Pieces>()
  readonly #imports = new Map<ImportTarget, Pieces>()

  async start (): Promise<void> { /* nothing to open */ }

  async stop (): Promise<void> {
    this.#files.clear()
    this.#imports.clear()
    await this.handles.close()
  }

  pathOf (): undefined { /* no paths in memory */ }
  directoryOf (): undefined { /* no paths in memory */ }
  async space (): Promise<undefined> { /* memory is bounded by the quota only */ }
  async probe (): Promise<void> { /* always writable */ }
  async create (file: FileRecord): Promise<void> { this.#files.set(file.key, new Pieces()) }
  async syncNames (): Promise<void> { /* nothing to sync */ }
  async checkPlace (): Promise<void> { /* memory stays where it is */ }
  async recover (): Promise<boolean> { return false }
  async sizeOf (file: FileRecord): Promise<number | undefined> { return this.#files.has(file.key) ? file.size : undefined }
  async restoreSize (file: FileRecord): Promise<void> { if (!this.#files.has(file.key)) await this.create(file) }
  async write (file: FileRecord, offset: number, slot: Slot): Promise<void> { this.#pieces(file.key).write(offset, slot.bytes) }
  async read (file: FileRecord, offset: number, into: Uint8Array): Promise<number> { return this.#pieces(file.key).read(offset, into) }
  async sync (): Promise<void> { /* nothing to sync */ }
  async complete (): Promise<void> { /* nothing to link */ }
  async reopen (): Promise<void> { /* nothing to link */ }
  async hasLinks (): Promise<boolean> { return true }
  async remove (file: FileRecord): Promise<void> { this.#files.delete(file.key) }

  async startImport (): Promise<ImportTarget> {
    const pieces = new Pieces()
    const target: ImportTarget = {
      path: undefined,
      write: async (offset, slot) => { pieces.write(offset, slot.bytes) },
      read: async (offset, into) => pieces.read(offset, into),
      sync: async () => undefined,
      discard: async () => { this.#imports.delete(target) }
    }
    this.#imports.set(target, pieces)
    return target
  }

  async clone (): Promise<undefined> { /* nothing shares blocks with memory */ }

  async adopt (imports: Array<{ target: ImportTarget, key: string }>): Promise<void> {
    for (const { target, key } of imports) {
      const pieces = this.#imports.get(target)
      if (pieces === undefined) throw new TypeError('an import of another store')
      this.#imports.delete(target)
      this.#files.set(key, pieces)
    }
  }

  async saveModel (): Promise<void> { /* goes with the process, like all the rest */ }
  async saveFlags (): Promise<void> { /* likewise */ }
  async removeModel (): Promise<void> { /* likewise */ }
  async * savedModels (): AsyncGenerator<SavedModel> { /* likewise */ }
  async leftovers (): Promise<Leftovers> { return { bytes: 0, remove: async () => 0 } }

  #pieces (key: string): Pieces {
    const pieces = this.#files.get(key)
    if (pieces === undefined) throw Object.assign(new Error(`no file ${key}`), { code: 'ENOENT' })
    return pieces
  }
}
