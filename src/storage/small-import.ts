import { open, rm, type FileHandle } from 'node:fs/promises'
import type { ImportTarget } from './byte-store.ts'
import { readFully, writeFully } from './handles.ts'
import type { Slot } from './slots.ts'

export interface SmallImportInit {
  path: string
  size: number
  /** Of the new file. Its own descriptor writes to it also when the mode says that nobody may. */
  mode: number
  /** False when it is not this import's any more. */
  letGo: () => boolean
}

/**
 * A small file on its way in, with a descriptor of its own: opened at its first write and closed when it is synced, so that
 * one of thousands costs four calls.
 */
export class SmallImport implements ImportTarget {
  readonly path: string
  readonly #init: SmallImportInit
  #opening: Promise<FileHandle> | undefined
  #written = 0
  #synced: Promise<void> | undefined
  /** Writes that are under way: its descriptor stays open until they are over. */
  readonly #writing = new Set<Promise<void>>()

  constructor (init: SmallImportInit) {
    this.path = init.path
    this.#init = init
  }

  async write (offset: number, slot: Slot): Promise<void> {
    const writing = writeFully(await this.#open(), slot.bytes, offset)
    this.#writing.add(writing)
    try {
      await writing
    } finally {
      this.#writing.delete(writing)
    }
    this.#written += slot.bytes.length
  }

  async read (offset: number, into: Uint8Array): Promise<number> {
    const handle = await open(this.path, 'r')
    try {
      return await readFully(handle, into, offset)
    } finally {
      await handle.close()
    }
  }

  /** Once: a descriptor tells of a failed write-back one time, and this one is gone then. */
  async sync (): Promise<void> {
    await (this.#synced ??= this.#sync())
  }

  async discard (): Promise<void> {
    if (!this.#init.letGo()) return
    await Promise.allSettled(this.#writing)
    if (this.#synced === undefined) await this.#opening?.then(async handle => { await handle.close() }).catch(() => undefined) // what it had to tell was told
    else await this.#synced.catch(() => undefined)
    await rm(this.path, { force: true })
  }

  async #open (): Promise<FileHandle> {
    return await (this.#opening ??= open(this.path, 'wx', this.#init.mode))
  }

  async #sync (): Promise<void> {
    const handle = await this.#open()
    try {
      if (this.#written < this.#init.size) await handle.truncate(this.#init.size)
      await handle.datasync()
    } finally {
      await handle.close()
    }
  }
}
