import { stat } from 'node:fs/promises'
import { systemCode } from '../base/index.ts'
import type { StoredFile } from '../storage/store.ts'

/**
 * The bad places of one scrub pass. A block is one. What lies behind the end of a file is one as well, however many
 * blocks that are: the file was cut off or deleted, and that says nothing about the rest of the volume.
 */
export class BadPlaces {
  readonly #cutOff = new Set<StoredFile>()
  #blocks = 0

  /** `size`: of the file, before its blocks were looked at. */
  add (file: StoredFile, blocks: readonly number[], size: number): void {
    for (const block of blocks) {
      if ((file.offsets[block] ?? 0) + (file.index.sizes[block] ?? 0) > size) this.#cutOff.add(file)
      else this.#blocks++
    }
  }

  get count (): number { return this.#blocks + this.#cutOff.size }

  clear (): void {
    this.#cutOff.clear()
    this.#blocks = 0
  }
}

/** Bytes of a file as it stands on the disk; 0 when it is gone, Infinity where there is none to look at. */
export async function sizeOnDisk ({ path }: StoredFile): Promise<number> {
  if (path === undefined) return Infinity
  try {
    return (await stat(path)).size
  } catch (error) {
    return systemCode(error) === 'ENOENT' ? 0 : Infinity
  }
}
