/** The JSON of the Hub's model routes, from a model's description. Pure. */
import type { DescribedFile, ModelDescription, ModelLink } from '../node/types.ts'
import { HubError } from './errors.ts'
import { gitHash, identityOf } from './identity.ts'
import { resolvedBy, titleOf, type Resolved } from './repos.ts'

export interface TreeFile { type: 'file', oid: string, size: number, path: string, lfs?: { oid: string, size: number, pointerSize: number }, lastCommit?: LastCommit }
export interface TreeDirectory { type: 'directory', oid: string, size: 0, path: string, lastCommit?: LastCommit }
export type TreeEntry = TreeFile | TreeDirectory
interface LastCommit { id: string, title: string, date: string }

/** When a model is named by its CID there is no date; clients need one. */
const NO_DATE = 0
const MODE_FILE = '100644'
const MODE_DIRECTORY = '40000'

/** All files and directories below `path`, or with `recursive` false those directly in it. Throws HubError (EntryNotFound). */
export function treeOf (model: ModelDescription, path: string, { recursive }: { recursive: boolean }): TreeEntry[] {
  const entries = path === '' ? entriesOf(model) : entriesOf(model).filter(entry => entry.path.startsWith(`${path}/`))
  if (entries.length === 0) throw new HubError(404, `there is no directory ${JSON.stringify(path.slice(0, 200))} in this revision`, { code: 'EntryNotFound' })
  const below = path === '' ? 0 : path.length + 1
  return recursive ? [...entries] : entries.filter(entry => !entry.path.includes('/', below))
}

/** What is there of these paths, files and directories; what is not is left out. */
export function pathsInfo (model: ModelDescription, paths: readonly string[]): TreeEntry[] {
  const wanted = new Set(paths.map(path => path.replace(/\/$/, '')))
  return entriesOf(model).filter(({ path }) => wanted.has(path))
}

const known = new WeakMap<ModelDescription, readonly TreeEntry[]>()

/** Every file and directory, by path. Made once for a description: pages of a listing ask for it again and again. */
function entriesOf (model: ModelDescription): readonly TreeEntry[] {
  let entries = known.get(model)
  if (entries === undefined) {
    entries = [...directoriesOf(model), ...model.files.map(fileEntry)].sort((a, b) => (a.path < b.path ? -1 : 1))
    known.set(model, entries)
  }
  return entries
}

export function withCommit (entries: readonly TreeEntry[], resolved: Resolved): TreeEntry[] {
  const lastCommit = { id: resolved.commit, title: titleOf(resolved), date: dateOf(resolved) }
  return entries.map(entry => ({ ...entry, lastCommit }))
}

const ALWAYS = ['_id', 'id', 'modelId']

export function modelInfo (resolved: Resolved, model: ModelDescription, query: { blobs: boolean, securityStatus: boolean, expand: readonly string[] }): Record<string, unknown> {
  const { repo, commit } = resolved
  const info: Record<string, unknown> = {
    _id: commit.slice(0, 24),
    id: repo,
    modelId: repo,
    author: repo.includes('/') ? repo.slice(0, repo.indexOf('/')) : undefined,
    sha: commit,
    lastModified: dateOf(resolved),
    createdAt: dateOf(resolved),
    private: false,
    gated: false,
    disabled: false,
    downloads: 0,
    likes: 0,
    tags: [],
    spaces: [],
    usedStorage: model.files.reduce((sum, file) => sum + file.size, 0),
    siblings: model.files.map(file => query.blobs ? sibling(file) : { rfilename: file.path })
  }
  // Nothing here scans files, and nothing says so.
  if (query.securityStatus) info.securityRepoStatus = { scansDone: false, filesWithIssues: [] }
  if (query.expand.length === 0) return info
  return Object.fromEntries(Object.entries(info).filter(([key]) => ALWAYS.includes(key) || query.expand.includes(key)))
}

export function refsOf (links: readonly ModelLink[]): Record<string, unknown> {
  return {
    branches: links.map(link => ({ name: link.revision, ref: `refs/heads/${link.revision}`, targetCommit: resolvedBy(link).commit })),
    converts: [],
    tags: [],
    pullRequests: []
  }
}

export function commitsOf (resolved: Resolved): Array<Record<string, unknown>> {
  return [{ id: resolved.commit, title: titleOf(resolved), message: '', date: dateOf(resolved), authors: [] }]
}

/** Which file llama.cpp means by a tag: a quantization, in the file's name, or `latest` for its own choice. */
export function ggufFor (model: ModelDescription, tag: string): DescribedFile {
  const all = model.files.filter(({ path }) => path.toLowerCase().endsWith('.gguf'))
  const weights = all.filter(({ path }) => !/mmproj/i.test(path) && partOf(path) === 1)
  const has = (word: string) => ({ path }: DescribedFile): boolean => path.toLowerCase().includes(word.toLowerCase())
  const found = tag === 'latest'
    ? weights.find(has('q4_k_m')) ?? weights.find(has('q4_0')) ?? weights[0]
    : weights.find(has(tag))
  if (found === undefined) throw new HubError(404, `there is no GGUF file for ${JSON.stringify(tag.slice(0, 100))} in this revision`, { code: 'EntryNotFound' })
  return found
}

/** `-00002-of-00005.gguf` is the second part: llama.cpp finds the others by the first. */
function partOf (path: string): number {
  return Number(/-(\d{1,6})-of-\d{1,6}\.gguf$/i.exec(path)?.[1] ?? 1)
}

function sibling (file: DescribedFile): Record<string, unknown> {
  const { oid, lfs } = identityOf(file)
  return { rfilename: file.path, size: file.size, blobId: oid, ...(lfs === undefined ? {} : { lfs }) }
}

function fileEntry (file: DescribedFile): TreeFile {
  const { oid, lfs } = identityOf(file)
  const entry: TreeFile = { type: 'file', oid, size: file.size, path: file.path }
  if (lfs !== undefined) entry.lfs = { oid: lfs.sha256, size: lfs.size, pointerSize: lfs.pointerSize }
  return entry
}

/** Every directory, under the name git would give its tree. */
function directoriesOf (model: ModelDescription): TreeDirectory[] {
  const children = new Map<string, Map<string, { mode: string, oid: string }>>()
  const enter = (path: string, mode: string, oid: string): void => {
    const slash = path.lastIndexOf('/')
    const parent = slash < 0 ? '' : path.slice(0, slash)
    let siblings = children.get(parent)
    if (siblings === undefined) children.set(parent, siblings = new Map())
    siblings.set(path.slice(slash + 1), { mode, oid })
  }
  for (const file of model.files) {
    enter(file.path, MODE_FILE, identityOf(file).oid)
    for (let slash = file.path.lastIndexOf('/'); slash > 0; slash = file.path.lastIndexOf('/', slash - 1)) enter(file.path.slice(0, slash), MODE_DIRECTORY, '')
  }
  children.delete('')
  const directories: TreeDirectory[] = []
  // The deepest first: a tree names the trees in it.
  for (const [path, entries] of [...children].sort(([a], [b]) => b.length - a.length)) {
    const oid = gitHash('tree', treeObject(entries))
    enter(path, MODE_DIRECTORY, oid)
    directories.push({ type: 'directory', oid, size: 0, path })
  }
  return directories
}

/** git sorts directories as if their names ended with a slash (git-scm.com/docs/git-mktree, base_name_compare). */
function treeObject (entries: Map<string, { mode: string, oid: string }>): Buffer {
  const key = ([name, { mode }]: [string, { mode: string }]): string => mode === MODE_DIRECTORY ? `${name}/` : name
  return Buffer.concat([...entries].sort((a, b) => (key(a) < key(b) ? -1 : 1)).flatMap(([name, { mode, oid }]) => [
    Buffer.from(`${mode} ${name}\0`), Buffer.from(oid, 'hex')
  ]))
}

function dateOf ({ linkedAt }: Resolved): string {
  return new Date(linkedAt ?? NO_DATE).toISOString()
}
