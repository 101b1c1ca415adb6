import { DESCRIBE_MS, UpstreamMismatchError } from '../base/index.ts'
import type { Claim } from './claims.ts'
import type { Describe, DescribedModel } from './components.ts'
import type { KnownModel } from './known-model.ts'
import { contentOf } from './upstream-model.ts'

/** The model that a peer says to have, as far as its description goes. Throws UpstreamMismatchError, NoProviderError. */
export async function checkClaim ({ describe }: { describe: Describe }, known: KnownModel, { cid, peerId }: Claim, signal: AbortSignal): Promise<string> {
  if (cid === undefined) throw new TypeError(`a claim without a model from ${peerId}`)
  checkDescription(known, await describe(cid, { signal, from: [peerId], providerTimeoutMs: DESCRIBE_MS }), peerId)
  return cid
}

/**
 * Whether a model says of itself what the upstream says of this revision: the same files, or some of them, of the same sizes, with the same hashes
 * where it has them. Its bytes are another matter. Throws UpstreamMismatchError.
 */
export function checkDescription ({ model, commit }: KnownModel, described: DescribedModel, from: string, which: 'all' | 'some' = 'all'): void {
  const wrong = (path: string, found: string, told: string): UpstreamMismatchError =>
    new UpstreamMismatchError(`${path} of ${model.repo} at ${commit.slice(0, 12)} is ${found} in ${described.cid} from ${from}, and ${told} at the upstream`)
  const files = new Map(described.files.map(file => [file.path, file]))
  const told = which === 'all' ? model.files : model.files.filter(({ path }) => files.has(path))
  if (files.size !== told.length) throw wrong('the list of files', `${files.size} long`, `${model.files.length} long`)
  for (const file of told) {
    const found = files.get(file.path)
    if (found?.size !== file.size) throw wrong(file.path, found === undefined ? 'missing' : `of ${found.size} bytes`, `of ${file.size} bytes`)
    const hash = file.sha256 === undefined ? found.gitSha1 : found.sha256
    if (hash !== undefined && hash !== contentOf(file)) throw wrong(file.path, hash, contentOf(file))
  }
}
