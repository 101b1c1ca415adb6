import type { Caller, UpstreamFile, UpstreamModel } from './types.ts'
import { checkHash, hashFor } from './upstream-model.ts'
import type { Upstream } from './upstream.ts'

/** A range of a file as it comes; of a whole one, the last piece when its hash was compared. Throws UpstreamError and its kin, UpstreamMismatchError. */
export async function * passOn (upstream: Upstream, { model, file, caller }: { model: UpstreamModel, file: UpstreamFile, caller: Caller }, { offset, end }: { offset: number, end: number }, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const { from, body } = await upstream.read(model, file, { offset, end }, caller, signal)
  const hash = offset === 0 && end === file.size ? hashFor(file) : undefined
  let at = from
  let kept: Uint8Array | undefined
  for await (const bytes of body) {
    // An upstream that knows no ranges gives all of it.
    const piece = bytes.subarray(Math.min(bytes.length, Math.max(0, offset - at)), Math.max(0, Math.min(bytes.length, end - at)))
    at += bytes.length
    hash?.update(piece)
    if (kept !== undefined && kept.length > 0) yield kept
    kept = piece
    if (at >= end && hash === undefined) break
  }
  if (hash !== undefined) checkHash(model, file, hash, upstream.url)
  if (kept !== undefined && kept.length > 0) yield kept
}
