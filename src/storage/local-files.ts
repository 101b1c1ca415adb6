import type { FileGuard, StoredFile, StoredModel } from './store.ts'

export interface LocalFile { path: string | undefined, guard: FileGuard | undefined }

/**
 * Where the files of a model are to be read, by position. Models that share a file in place have a place of it each: a model's own
 * place is the one in the directory where most of its files are.
 */
export function localFiles (model: StoredModel): (position: number) => LocalFile {
  let counts: Map<string, number> | undefined
  return position => {
    const file = model.files[position]
    const places = file?.places ?? []
    if (places.length < 2) return { path: file?.path, guard: file?.guard }
    counts ??= rootsOf(model)
    const path = model.manifest.value.files[position]?.path ?? ''
    let own = file?.guard
    for (const place of places) if (countOf(place, path, counts) > (own === undefined ? 0 : countOf(own, path, counts))) own = place
    return { path: own?.path ?? file?.path, guard: own }
  }
}

/** How many files are away, and where the first of them was in place; undefined when none is. */
export function awayOf (model: StoredModel): { files: number, path: string } | undefined {
  const paths = model.files.map(({ away }: StoredFile) => away).filter(path => path !== undefined)
  return paths[0] === undefined ? undefined : { files: paths.length, path: paths[0] }
}

function rootsOf (model: StoredModel): Map<string, number> {
  const counts = new Map<string, number>()
  for (const [position, { path }] of model.manifest.value.files.entries()) {
    for (const place of model.files[position]?.places ?? []) {
      const root = rootOf(place, path)
      if (root !== undefined) counts.set(root, (counts.get(root) ?? 0) + 1)
    }
  }
  return counts
}

function countOf (place: FileGuard, path: string, counts: ReadonlyMap<string, number>): number {
  const root = rootOf(place, path)
  return root === undefined ? 0 : counts.get(root) ?? 0
}

/** The directory a file was added from; undefined when it has another name in the model. */
function rootOf ({ path: place }: FileGuard, path: string): string | undefined {
  return place.endsWith(`/${path}`) ? place.slice(0, -path.length) : undefined
}
