import { createHash, type Hash } from 'node:crypto'
import { parentPort } from 'node:worker_threads'

/** `add` hashes bytes of shared memory; `finish` answers with the digest and starts anew. One file at a time. */
export type HashRequest = { type: 'add', bytes: Uint8Array } | { type: 'finish' }
export type HashAnswer = { type: 'added' } | { type: 'digest', digest: Uint8Array }

let hash: Hash = createHash('sha256')

parentPort?.on('message', (request: HashRequest) => {
  if (request.type === 'add') {
    hash.update(request.bytes)
    parentPort?.postMessage({ type: 'added' } satisfies HashAnswer)
  } else {
    const digest = new Uint8Array(hash.digest())
    hash = createHash('sha256')
    parentPort?.postMessage({ type: 'digest', digest } satisfies HashAnswer)
  }
})
