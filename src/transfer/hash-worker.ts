import { parentPort } from 'node:worker_threads'
import { Blake3Hasher } from '@napi-rs/blake-hash'

/** Bytes of shared memory, which stay as they are until they are answered. Answers come in the order of the requests. */
export interface HashRequest { bytes: Uint8Array }
export interface HashAnswer { digest: Uint8Array }

const hasher = new Blake3Hasher()

parentPort?.on('message', ({ bytes }: HashRequest) => {
  hasher.reset()
  hasher.update(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  parentPort?.postMessage({ digest: hasher.digestBuffer() } satisfies HashAnswer)
})
