import { DESCRIBE_MS, InvalidCidError } from '../base/index.ts'
import { CID_ORG, DEFAULT_REVISION, checkRepo, parseModelCid, printable } from '../model/index.ts'
import type { Caller, DescribedFile, ModelDescription, ModelLink, OriginModel, ShoalNode, UpstreamFile } from '../node/types.ts'
import { HubError } from './errors.ts'
import { commitOf } from './identity.ts'

/** A revision of a repository, found: `commit` stands for it wherever clients keep one. */
export interface Resolved {
  repo: string
  commit: string
  /** Milliseconds since 1970: when it was linked; of one named by its CID, or known from the upstream, none. */
  linkedAt: number | undefined
  /** What it is here, or what the upstream says of it. */
  from: { kind: 'model', cid: string } | { kind: 'origin', model: OriginModel }
}

type RepoNode = Pick<ShoalNode, 'links' | 'describe' | 'origin'>

/** Commits that were given out and may be asked for after their name was linked to something else. */
const COMMITS_MAX = 10_000

/** Repositories by name: those that are linked here, `cid/<model CID>` for every model there is, and with an upstream all of that. */
export class Repos {
  readonly #node: RepoNode
  readonly #given = new Map<string, Resolved>()
  readonly #listed = new WeakMap<readonly UpstreamFile[], ModelDescription>()

  constructor (node: RepoNode) {
    this.#node = node
  }

  /** Throws HubError: RepoNotFound, RevisionNotFound; and what the upstream says when there is one. */
  async resolve (repo: string, revision = DEFAULT_REVISION, caller: Caller): Promise<Resolved> {
    const { origin } = this.#node
    const links = this.#own(repo)
    const wanted = revision.replace(/^refs\/(?:heads|tags)\//, '')
    const link = links.find(link => link.revision === wanted) ?? links.find(link => commitOf(link.cid) === wanted)
    const resolved = link === undefined ? this.#given.get(`${repo}@${wanted}`) : resolvedBy(link)
    if (resolved !== undefined) {
      this.#remember(resolved)
      return resolved
    }
    if (origin !== undefined && isForeign(repo)) {
      const model = await origin.resolve(repo, wanted, caller)
      return { repo, commit: model.commit, linkedAt: undefined, from: { kind: 'origin', model } }
    }
    if (links.length === 0) throw nothing(repo)
    throw new HubError(404, `${printable(repo)} has no revision ${printable(revision)} here, only ${links.map(link => link.revision).slice(0, 8).join(', ')}`, { code: 'RevisionNotFound' })
  }

  /** The revisions of a repository; undefined when only the upstream can tell them. Throws HubError (RepoNotFound) when it has none. */
  links (repo: string): ModelLink[] | undefined {
    const links = this.#own(repo)
    if (links.length > 0) return links
    if (this.#node.origin !== undefined && isForeign(repo)) return undefined
    throw nothing(repo)
  }

  /** Names that the upstream tells some callers only are for nobody to list. */
  all (): ModelLink[] { return this.#node.links().filter(({ origin }) => origin?.restricted !== true) }

  /** Throws NoProviderError and others when it is not held here and could not be found in time. */
  async describe ({ from }: Resolved, signal: AbortSignal): Promise<ModelDescription> {
    if (from.kind === 'model') return await this.#node.describe(from.cid, { signal, providerTimeoutMs: DESCRIBE_MS })
    const { files, foreign = [] } = from.model
    const key = foreign.length === 0 ? files : foreign
    let listed = this.#listed.get(key)
    if (listed === undefined) this.#listed.set(key, listed = { cid: '', files: [...files, ...foreign].sort((a, b) => (a.path < b.path ? -1 : 1)).map(described) })
    return listed
  }

  /** Made by users here. What came from the upstream is the upstream's to say: who may have it, and where its branches stand. */
  #own (repo: string): ModelLink[] {
    const [org, text = ''] = repo.split('/')
    if (org === CID_ORG) return named(repo, text)
    const links = this.#node.links(repo)
    return this.#node.origin === undefined ? links.filter(({ origin }) => origin?.restricted !== true) : links.filter(({ origin }) => origin === undefined)
  }

  /** `cid/` and the commit that follows from it say all there is: they would only push out what has to be remembered. */
  #remember (resolved: Resolved): void {
    if (resolved.repo.startsWith(`${CID_ORG}/`)) return
    const key = `${resolved.repo}@${resolved.commit}`
    this.#given.delete(key)
    this.#given.set(key, resolved)
    if (this.#given.size <= COMMITS_MAX) return
    const [oldest] = this.#given.keys()
    if (oldest !== undefined) this.#given.delete(oldest)
  }
}

/** A name that a Hub can have. */
function isForeign (repo: string): boolean {
  try {
    checkRepo(repo)
    return true
  } catch {
    return false
  }
}

function nothing (repo: string): HubError {
  return new HubError(404, `nothing is linked as ${printable(repo)} on this node; link it with: shoal link ${/^[\w./-]{1,200}$/.test(repo) ? repo : 'ORG/NAME'} CID, or ask for cid/CID`, { code: 'RepoNotFound' })
}

function named (repo: string, text: string): ModelLink[] {
  try {
    return [{ repo, revision: DEFAULT_REVISION, cid: parseModelCid(text).toString(), linkedAt: NaN }]
  } catch (error) {
    if (error instanceof InvalidCidError) throw new HubError(404, error.message, { code: 'RepoNotFound', cause: error })
    throw error
  }
}

/** In the upstream's words: a client that had it from there finds the same names here. */
function described ({ path, size, oid, sha256 }: UpstreamFile): DescribedFile {
  return sha256 === undefined ? { path, size, sha256: '', gitSha1: oid } : { path, size, sha256, gitSha1: undefined }
}

export function resolvedBy ({ repo, cid, linkedAt, origin }: ModelLink): Resolved {
  return { repo, commit: origin?.commit ?? commitOf(cid), linkedAt: Number.isNaN(linkedAt) ? undefined : linkedAt, from: { kind: 'model', cid } }
}

/** What a commit is told to be made of. */
export function titleOf ({ repo, from }: Resolved): string {
  return `model ${from.kind === 'model' ? from.cid : from.model.cid ?? repo}`
}
