// Asks a Prometheus as Grafana's own data source does, by its documented behaviour: how variables are put into queries,
// which step a panel's width gives, what $__rate_interval is, how series are named and tables are made.
import {
  DataSourceApi, DataTopic, FieldType, LoadingState, createDataFrame, getDefaultTimeRange, rangeUtil,
  type DataFrame, type DataQueryRequest, type DataQueryResponse, type ScopedVars,
} from '@grafana/data';
import { getTemplateSrv } from '@grafana/runtime';
import { from, type Observable } from 'rxjs';

const SCRAPE_SECONDS = 5;

interface Query {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: string;
  instant?: boolean;
  exemplar?: boolean;
}
interface Series {
  metric: Record<string, string>;
  values: Array<[number, string]>;
}

const number = (text: string) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));
const escaped = (text: string) => text.replace(/[\\$^*{}[\]'+?.()|]/g, '\\\\$&');

/** A value of a variable inside a regular expression: several become alternatives. */
export function inRegex(value: string | string[], variable: { multi?: boolean; includeAll?: boolean }): string {
  if (!variable.multi && !variable.includeAll) {
    return String(value);
  }
  const choices = (Array.isArray(value) ? value : [value]).map(escaped);
  return choices.length === 1 ? choices[0] : `(${choices.join('|')})`;
}

async function ask(path: string, parameters: Record<string, string>) {
  const answer = await fetch(`/prometheus${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== 'success') {
    throw new Error(`${body.error} in ${JSON.stringify(parameters)}`);
  }
  return body.data;
}

export class PrometheusSource extends DataSourceApi<Query & { [key: string]: any }> {
  interval = `${SCRAPE_SECONDS}s`;

  async testDatasource() {
    return { status: 'success', message: '' };
  }

  filterQuery(query: Query) {
    return Boolean(query.expr);
  }

  async metricFindQuery(asked: any, options: any) {
    const filled = getTemplateSrv().replace(asked.query ?? asked, options?.scopedVars, inRegex);
    const parts = filled.match(/^label_values\((?:(.+),\s*)?(\w+)\)\s*$/);
    if (!parts) {
      throw new Error(`not a query for a variable: ${filled}`);
    }
    const range = options?.range ?? getDefaultTimeRange();
    const span = { start: `${range.from.valueOf() / 1000}`, end: `${range.to.valueOf() / 1000}` };
    const values = await ask(`/api/v1/label/${parts[2]}/values`, parts[1] ? { ...span, 'match[]': parts[1] } : span);
    return values.map((text: string) => ({ text }));
  }

  query(request: DataQueryRequest<any>): Observable<DataQueryResponse> {
    return from(this.answer(request));
  }

  private async answer(request: DataQueryRequest<any>): Promise<DataQueryResponse> {
    const queries = request.targets.filter((each) => each.expr);
    const frames = await Promise.all(queries.map((each) => this.frames(each, request, queries.length > 1)));
    return { data: frames.flat(), state: LoadingState.Done };
  }

  private async frames(query: Query, request: DataQueryRequest<any>, isOneOfMany: boolean): Promise<DataFrame[]> {
    const start = request.range.from.valueOf() / 1000;
    const end = request.range.to.valueOf() / 1000;
    const step = Math.max(request.intervalMs / 1000, SCRAPE_SECONDS, (end - start) / 11000);
    const scoped: ScopedVars = {
      ...request.scopedVars,
      __interval: { value: `${step}s` },
      __rate_interval: { value: `${Math.max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s` },
      __range: { value: `${Math.round(end - start)}s` },
      __range_s: { value: Math.round(end - start) },
    };
    const expr = getTemplateSrv().replace(query.expr, scoped, inRegex);
    if (query.instant) {
      const data = await ask('/api/v1/query', { query: expr, time: `${end}` });
      const series = data.result.map((each: any) => ({ metric: each.metric, values: [each.value] }));
      return query.format === 'table' ? tables(query, series, isOneOfMany) : series.map((each: Series) => line(query, each));
    }
    const first = Math.floor(start / step) * step;
    const last = Math.floor(end / step) * step;
    const data = await ask('/api/v1/query_range', { query: expr, start: `${first}`, end: `${last}`, step: `${step}` });
    const frames = data.result.map((each: Series) => line(query, withGaps(each, first, last, step), step));
    if (query.format === 'heatmap') {
      const bound = (frame: DataFrame) => number(frame.fields[1].labels?.le ?? '');
      frames.sort((a: DataFrame, b: DataFrame) => bound(a) - bound(b));
    }
    return query.exemplar ? [...frames, ...(await exemplars(query, expr, { start, end, step }))] : frames;
  }
}

/** A point Prometheus does not have is a gap, not a line from one neighbour to the other. */
function withGaps(series: Series, first: number, last: number, step: number): Series {
  const known = new Map(series.values.map(([at, value]) => [Math.round(at * 1000), value]));
  const values: Array<[number, any]> = [];
  for (let at = first; at <= last + 1e-6; at += step) {
    values.push([at, known.get(Math.round(at * 1000)) ?? null]);
  }
  return { metric: series.metric, values };
}

function line(query: Query, series: Series, step?: number): DataFrame {
  const name = query.legendFormat
    ? query.legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => series.metric[label] ?? '')
    : JSON.stringify(series.metric);
  return createDataFrame({
    refId: query.refId,
    name,
    fields: [
      {
        name: 'Time', type: FieldType.time, values: series.values.map(([at]) => at * 1000),
        config: step ? { interval: step * 1000 } : {},
      },
      {
        name: 'Value', type: FieldType.number, labels: series.metric, config: { displayNameFromDS: name },
        values: series.values.map(([, value]) => (value === null ? null : number(value))),
      },
    ],
  });
}

export function tables(query: { refId: string }, series: Series[], isOneOfMany: boolean): DataFrame[] {
  if (!series.length) {
    return [];
  }
  const labels = [...new Set(series.flatMap((each) => Object.keys(each.metric)))].sort();
  return [
    createDataFrame({
      refId: query.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: series.map((each) => each.values[0][0] * 1000) },
        ...labels.map((label) => ({
          name: label, type: FieldType.string, values: series.map((each) => each.metric[label] ?? ''),
        })),
        {
          name: isOneOfMany ? `Value #${query.refId}` : 'Value', type: FieldType.number,
          values: series.map((each) => number(each.values[0][1])),
        },
      ],
    }),
  ];
}

interface Exemplar {
  timestamp: number;
  value: string;
}

/** Of each step the largest, and of the others those that are two standard deviations from the one before. */
function sampled(points: Exemplar[], step: number): Exemplar[] {
  const values = points.map((each) => Number(each.value));
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const apart = 2 * Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  const byStep = new Map<number, Exemplar[]>();
  for (const each of [...points].sort((one, other) => Number(other.value) - Number(one.value))) {
    const kept = byStep.get(Math.floor(each.timestamp / step)) ?? [];
    if (!kept.length || Number(kept.at(-1)!.value) - Number(each.value) >= apart) {
      byStep.set(Math.floor(each.timestamp / step), [...kept, each]);
    }
  }
  return [...byStep.values()].flat();
}

async function exemplars(query: Query, expr: string, span: { start: number; end: number; step: number }) {
  const found = await ask('/api/v1/query_exemplars', { query: expr, start: `${span.start}`, end: `${span.end}` });
  const points = sampled(found.flatMap((series: any) => series.exemplars), span.step);
  return [
    createDataFrame({
      refId: query.refId,
      name: 'exemplar',
      meta: { dataTopic: DataTopic.Annotations },
      fields: [
        { name: 'Time', type: FieldType.time, values: points.map((each) => each.timestamp * 1000) },
        { name: 'Value', type: FieldType.number, values: points.map((each) => Number(each.value)) },
      ],
    }),
  ];
}
