import { dirname, join, resolve } from 'node:path'
import type { OpenFile } from '../node/types.ts'

/** Files in place lie where their user keeps them: the directory under which all stand by their paths, if there is one. */
export function commonDirectory (files: ReadonlyArray<Pick<OpenFile, 'path' | 'localPath'>>): string | undefined {
  const [first] = files
  if (first?.localPath === undefined) return undefined
  const depth = first.path.split('/').length
  const directory = Array.from({ length: depth }).reduce<string>(path => dirname(path), resolve(first.localPath))
  return files.every(file => file.localPath !== undefined && resolve(file.localPath) === join(directory, file.path)) ? directory : undefined
}
