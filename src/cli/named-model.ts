import { InvalidCidError, LinkNotFoundError, UsageError } from '../base/index.ts'
import { printable } from '../model/printable.ts'
import { CID_ORG, DEFAULT_REVISION, type RepoName } from '../model/repo-name.ts'
import type { Context } from './context.ts'

/** What help says of an argument that names a model. */
export const MODEL = 'the model: its CID, or a name that is linked to it here, ORG/NAME[@REVISION]'

/** In any base a CID is written in; the daemon looks closer. As python/src/shoal/_names.py has it: no name in practice is one word that long. */
const LIKE_CID = /^[A-Za-z0-9+=]{46,256}$/

export interface NamedModel {
  cid: string
  /** What it was named by, unless that was its CID. */
  name: RepoName | undefined
}

/**
 * The model that a user means: by its CID, by `cid/CID`, or by a name as it is linked on this node. Asks the daemon for names only.
 * Throws LinkNotFoundError; InvalidCidError where one word is neither a CID nor linked; UsageError for a revision of a CID.
 */
export async function namedModel ({ client, signal }: Pick<Context, 'client' | 'signal'>, text: string): Promise<NamedModel> {
  if (LIKE_CID.test(text)) return { cid: text, name: undefined }
  const at = text.indexOf('@')
  const [repo, revision] = at < 0 ? [text, DEFAULT_REVISION] : [text.slice(0, at), text.slice(at + 1)]
  if (repo.startsWith(`${CID_ORG}/`)) {
    if (revision !== DEFAULT_REVISION) throw new UsageError(`${printable(text)} names a model by its CID, which has no revisions`)
    return { cid: repo.slice(CID_ORG.length + 1), name: undefined }
  }
  const found = (await client.links({ signal })).find(link => link.repo === repo && link.revision === revision)
  if (found !== undefined) return { cid: found.cid, name: { repo, revision } }
  const fix = 'see what is with: shoal links; link it with: shoal link NAME CID'
  if (text.includes('/') || at >= 0) throw new LinkNotFoundError(`nothing is linked as ${printable(text)} here; ${fix}`)
  throw new InvalidCidError(`${printable(text)} is no model CID, and nothing is linked as that here; give the CID that shoal add printed, or a name: ${fix}`)
}
