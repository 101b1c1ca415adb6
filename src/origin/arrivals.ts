import { open } from 'node:fs/promises'
import { DiskError, systemCode, throwIfAborted } from '../base/index.ts'
import type { ArrivedFile } from './types.ts'

/**
 * Files of one model that are whole on this disk and are what the upstream says, while the rest of it is on its way: readers here need
 * not wait for that. An open file stays readable when publishing takes its name away.
 */
export class Arrivals {
  /** Places by path. */
  readonly #here = new Map<string, string>()
  readonly #waiting = new Set<() => void>()

  /** Its hash was compared just now. */
  add (path: string, place: string): void {
    this.#here.set(path, place)
    for (const wake of this.#waiting) wake()
  }

  /** The fetch is over: what came of it is in the store, or was left for the next. */
  clear (): void { this.#here.clear() }

  /** When it is here; of what comes another way, never. Throws the signal's reason. The caller closes it. */
  async take (path: string, signal: AbortSignal): Promise<ArrivedFile> {
    for (;;) {
      throwIfAborted(signal)
      const place = this.#here.get(path)
      const file = place === undefined ? undefined : await opened(place)
      if (file !== undefined) return file
      if (this.#here.get(path) === place) await this.#change(signal)
    }
  }

  async #change (signal: AbortSignal): Promise<void> {
    await new Promise<void>(resolve => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }
}

/** Undefined when it has gone into the store. */
async function opened (place: string): Promise<ArrivedFile | undefined> {
  try {
    const handle = await open(place, 'r')
    const { size } = await handle.stat()
    return {
      size,
      read: async (offset, into) => {
        for (let done = 0; done < into.length;) {
          const { bytesRead } = await handle.read(into, done, into.length - done, offset + done)
          if (bytesRead === 0) throw new DiskError(`${place} ends before byte ${offset + into.length}`)
          done += bytesRead
        }
      },
      close: async () => { await handle.close() }
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}
