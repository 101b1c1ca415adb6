/**
 * What a request asks for, from its address alone. Nothing here becomes a path of this machine: repositories are looked up
 * among the links, files in a manifest, both by the whole name.
 */
import { printable } from '../model/index.ts'
import { HubError } from './errors.ts'

export type Asked =
  { kind: 'file', repo: string, revision: string, path: string } |
  { kind: 'info', repo: string, revision: string | undefined, query: URLSearchParams } |
  { kind: 'tree', repo: string, revision: string, path: string, query: URLSearchParams } |
  { kind: 'paths-info', repo: string, revision: string } |
  { kind: 'commits', repo: string, revision: string } |
  { kind: 'gguf', repo: string, tag: string } |
  { kind: 'refs' | 'auth-check', repo: string } |
  { kind: 'models', query: URLSearchParams } |
  { kind: 'whoami' }

const BEHIND_REPO = new Set(['revision', 'tree', 'refs', 'commits', 'paths-info', 'auth-check', 'resolve', 'raw', 'manifests'])
/** Kinds of repositories that hold no models. */
const OTHER_KINDS = new Set(['datasets', 'spaces', 'kernels', 'buckets'])

/** Throws HubError for what is no address, or of nothing that is here. */
export function parseAddress (url: string): Asked {
  const at = url.indexOf('?')
  const segments = (at < 0 ? url : url.slice(0, at)).split('/').map(decode)
  if (segments.shift() !== '') throw new HubError(400, 'the address of a request begins with /')
  const query = new URLSearchParams(at < 0 ? '' : url.slice(at + 1))
  const asked = segments[0] === 'api' ? parseApi(segments.slice(1), query) : segments[0] === 'v2' ? parseGguf(segments.slice(1)) : parseFile(segments)
  if (asked === undefined) throw new HubError(404, `this endpoint has nothing at ${printable(url)}; it answers for models alone`)
  return asked
}

function parseApi (segments: string[], query: URLSearchParams): Asked | undefined {
  const [kind = '', ...rest] = segments
  if (kind === 'whoami-v2' && rest.length === 0) return { kind: 'whoami' }
  if (OTHER_KINDS.has(kind)) throw noSuchKind(kind)
  if (kind !== 'models') return undefined
  if (rest.length === 0) return { kind: 'models', query }
  const { repo, behind: [action, revision, ...path] } = splitRepo(rest)
  switch (action) {
    case undefined: return { kind: 'info', repo, revision: undefined, query }
    case 'revision': return revision === undefined || path.length > 0 ? undefined : { kind: 'info', repo, revision, query }
    // The path may come as one segment with its slashes encoded, or as many.
    case 'tree': return revision === undefined ? undefined : { kind: 'tree', repo, revision, path: path.join('/').replace(/\/$/, ''), query }
    case 'paths-info': return revision === undefined || path.length > 0 ? undefined : { kind: 'paths-info', repo, revision }
    case 'commits': return revision === undefined || path.length > 0 ? undefined : { kind: 'commits', repo, revision }
    case 'refs': return revision === undefined ? { kind: 'refs', repo } : undefined
    case 'auth-check': return revision === undefined ? { kind: 'auth-check', repo } : undefined
    default: return undefined
  }
}

function parseFile (segments: string[]): Asked | undefined {
  if (OTHER_KINDS.has(segments[0] ?? '')) throw noSuchKind(segments[0] ?? '')
  const { repo, behind: [action, revision, ...path] } = splitRepo(segments)
  if ((action !== 'resolve' && action !== 'raw') || revision === undefined || path.length === 0) return undefined
  return { kind: 'file', repo, revision, path: path.join('/') }
}

/** llama.cpp before it knew the tree asked as for a container image: `/v2/ORG/NAME/manifests/TAG`. */
function parseGguf (segments: string[]): Asked | undefined {
  const { repo, behind: [action, tag, ...rest] } = splitRepo(segments)
  return action === 'manifests' && tag !== undefined && rest.length === 0 ? { kind: 'gguf', repo, tag } : undefined
}

/** Names with and without an organisation: what may stand behind a name is no name (model/repo-name.ts). */
function splitRepo (segments: string[]): { repo: string, behind: string[] } {
  const [first = '', second] = segments
  if (second === undefined || BEHIND_REPO.has(second)) return { repo: first, behind: segments.slice(1) }
  return { repo: `${first}/${second}`, behind: segments.slice(2) }
}

function decode (segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch (error) {
    throw new HubError(400, `the address holds ${printable(segment)}, which is no percent-encoded UTF-8`, { cause: error })
  }
}

function noSuchKind (kind: string): HubError {
  return new HubError(404, `there are no ${kind} here: this endpoint answers for models alone`, { code: 'RepoNotFound' })
}
