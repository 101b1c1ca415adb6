import { InvalidSafetensorsError, Semaphore, type AbortOptions } from '../base/index.ts'
import { readSafetensors, type Tensor } from '../model/index.ts'
import type { ModelStore, StoredFile } from '../storage/store.ts'

/** Counts that are kept, of the files asked for last. */
const COUNTS_MAX = 16_384
const NEVER = new AbortController().signal

/**
 * The tensors of files that are here, from their headers. One of 100 MB may hold a million, so one is read at a time; how many
 * there are follows from the file's key and is kept.
 */
export class Tensors {
  readonly #store: ModelStore
  readonly #reading = new Semaphore(1)
  readonly #counts = new Map<string, number>()

  constructor (store: ModelStore) { this.#store = store }

  /** Undefined unless the file was cut as safetensors and its header is here. */
  async list (file: StoredFile, { signal = NEVER }: AbortOptions = {}): Promise<Tensor[] | undefined> {
    if (file.index.chunker !== 'safetensors' || !file.present.has(0)) return undefined
    return await this.#reading.run(async () => await this.#read(file), signal)
  }

  /** 0 where `list` gives none. Read once. */
  async count (file: StoredFile, { signal = NEVER }: AbortOptions = {}): Promise<number> {
    if (file.index.chunker !== 'safetensors' || !file.present.has(0)) return 0
    return this.#counts.get(file.key) ?? await this.#reading.run(async () => this.#counts.get(file.key) ?? (await this.#read(file))?.length ?? 0, signal)
  }

  async #read (file: StoredFile): Promise<Tensor[] | undefined> {
    try {
      const { tensors } = await readSafetensors(async (offset, length) => await this.#store.readRange(file, offset, length), file.index.size)
      this.#keep(file, tensors.length)
      return tensors
    } catch (error) {
      // No publisher of ours cuts a file so whose header is none, and its bytes never change.
      if (error instanceof InvalidSafetensorsError) this.#keep(file, 0)
      // Else the header is spread over blocks that are not all here yet, or was withdrawn meanwhile: nothing to show now.
      return undefined
    }
  }

  #keep ({ key }: StoredFile, count: number): void {
    this.#counts.delete(key)
    this.#counts.set(key, count)
    for (const oldest of this.#counts.keys()) {
      if (this.#counts.size <= COUNTS_MAX) break
      this.#counts.delete(oldest)
    }
  }
}
