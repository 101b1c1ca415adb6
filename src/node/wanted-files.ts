import picomatch from 'picomatch'
import { UsageError } from '../base/index.ts'
import { positionOf, type Manifest } from '../model/index.ts'

/** Means itself: no need to compare it with all files of a model of thousands. */
const LITERAL = /^[A-Za-z0-9_./-]+$/

/** Positions of the files whose path matches one of the globs; throws UsageError when none does. */
export function wantedFiles (cid: string, manifest: Manifest, include: string[] | undefined): number[] {
  if (include?.length === 1 && LITERAL.test(include[0] ?? '')) {
    const position = positionOf(manifest.files, include[0] ?? '')
    if (position >= 0) return [position]
  }
  const all = manifest.files.map((_, position) => position)
  if (include === undefined || include.length === 0) return all
  const matches = picomatch(include, { dot: true })
  const wanted = all.filter(position => matches(manifest.files[position]?.path ?? ''))
  if (wanted.length === 0) throw new UsageError(`no file of ${cid} matches ${include.join(', ')}; its files are: ${manifest.files.slice(0, 8).map(file => file.path).join(', ')}${manifest.files.length > 8 ? ', ...' : ''}`)
  return wanted
}
