/** Where a socket's bytes go: the handshake's reader first, then the stream's. */
export interface LaneInput {
  /** Takes the first `length` bytes of memory that is the caller's again afterwards; false: no more for now. */
  take: (memory: Uint8Array, length: number) => boolean
  /** Where the next chunk should be put; undefined: anywhere. */
  place?: () => Uint8Array | undefined
}

/** What a lane needs of the socket under it: a TLSSocket of this thread, or one that a lane thread keeps (lane-threads.ts). */
export interface LaneSocket {
  readonly destroyed: boolean
  /** Bytes that were written and have not left. */
  readonly writableLength: number
  /** Another thread's: what is written is read until `done`, and not only until the call returns. */
  readonly elsewhere?: boolean
  write: (bytes: Uint8Array, done: (error?: Error | null) => void) => unknown
  pause: () => unknown
  resume: () => unknown
  destroy: () => unknown
  once: (event: 'close', listener: () => void) => unknown
  on: ((event: 'end' | 'close', listener: () => void) => unknown) & ((event: 'error', listener: (error: Error) => void) => unknown)
}
