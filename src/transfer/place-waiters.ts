import { abortReason, type AbortOptions } from '../base/index.ts'

/** Takes the verified bytes of a block, which stands at `fileOffset`. They are valid during the call only. */
export type Take = (fileOffset: number, bytes: Uint8Array) => void

interface Waiter {
  readonly places: Set<number>
  /** Places that are not even written. */
  unwritten: number
  readonly take: Take | undefined
  readonly flush: () => void
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/** Who waits for places of a model: until they are recorded, or, with `take`, until their bytes have been there to take. */
export class PlaceWaiters {
  readonly #byPlace = new Map<number, Set<Waiter>>()

  /**
   * Resolves when all places are here. `isWritten` says of a place that its bytes have passed already; `flush` is called when
   * that is so of all, so that no time goes by until they are recorded. Rejects with the signal's reason, or what `rejectAll` is given.
   */
  async wait (places: number[], { signal, take, isWritten, flush }: AbortOptions & { take?: Take | undefined, isWritten: (place: number) => boolean, flush: () => void }): Promise<void> {
    if (places.length === 0) return
    const waiting = Promise.withResolvers<void>()
    const unwritten = places.filter(place => !isWritten(place)).length
    const waiter: Waiter = { places: new Set(places), unwritten, take, flush, resolve: waiting.resolve, reject: waiting.reject }
    for (const place of places) {
      const waiters = this.#byPlace.get(place)
      if (waiters === undefined) this.#byPlace.set(place, new Set([waiter]))
      else waiters.add(waiter)
    }
    if (unwritten === 0) flush()
    const onAbort = (): void => { if (signal !== undefined) waiting.reject(abortReason(signal)) }
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await waiting.promise
    } finally {
      signal?.removeEventListener('abort', onAbort)
      for (const place of places) this.#leave(place, waiter)
    }
  }

  /** The block of this place was verified. */
  verified (place: number, fileOffset: number, bytes: Uint8Array): void {
    for (const waiter of this.#byPlace.get(place) ?? []) {
      if (waiter.take === undefined) continue
      waiter.take(fileOffset, bytes)
      waiter.unwritten--
      this.#here(place, waiter)
      if (waiter.unwritten <= 0 && waiter.places.size > 0) waiter.flush()
    }
  }

  /** It is written. Says whether somebody waits for nothing but places that are. */
  written (place: number): boolean {
    let awaited = false
    for (const waiter of this.#byPlace.get(place) ?? []) if (--waiter.unwritten <= 0) awaited = true
    return awaited
  }

  recorded (place: number): void {
    for (const waiter of this.#byPlace.get(place) ?? []) this.#here(place, waiter)
  }

  rejectAll (error: Error): void {
    for (const waiter of new Set([...this.#byPlace.values()].flatMap(set => [...set]))) waiter.reject(error)
  }

  #here (place: number, waiter: Waiter): void {
    waiter.places.delete(place)
    this.#leave(place, waiter)
    if (waiter.places.size === 0) waiter.resolve()
  }

  #leave (place: number, waiter: Waiter): void {
    const waiters = this.#byPlace.get(place)
    waiters?.delete(waiter)
    if (waiters?.size === 0) this.#byPlace.delete(place)
  }
}
