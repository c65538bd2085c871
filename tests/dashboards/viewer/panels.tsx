// The panel types of the boards. Numbers, tables and graphs over time are Grafana's own components; the heatmap, the
// curve, the log lines and the node graph are in none of its libraries and are drawn here after its description.
import {
  FieldColorModeId, FieldConfigProperty, FieldType, PanelPlugin, formattedValueToString, getFieldDisplayValues,
  getValueFormat, identityOverrideProcessor, type DataFrame, type GrafanaTheme2, type PanelProps,
} from '@grafana/data';
import { BigValue, Table, TimeSeries, VizRepeater, useTheme2, type UPlotConfigBuilder } from '@grafana/ui';
import { useEffect, useLayoutEffect, useRef, type ReactNode } from 'react';

type Props = PanelProps<any>;

const GRAPH = {
  drawStyle: 'line', lineInterpolation: 'linear', barAlignment: 0, barWidthFactor: 0.6, lineWidth: 1, fillOpacity: 0,
  gradientMode: 'none', spanNulls: false, insertNulls: false, showPoints: 'auto', pointSize: 5,
  stacking: { mode: 'none', group: 'A' }, axisPlacement: 'auto', axisLabel: '', axisColorMode: 'text',
  axisBorderShow: false, scaleDistribution: { type: 'linear' }, axisCenteredZero: false, axisSoftMax: undefined,
  hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: 'off' }, lineStyle: undefined,
};
const CELLS = {
  align: 'auto', cellOptions: { type: 'auto' }, minWidth: undefined, width: undefined, inspect: false, filterable: false,
  hidden: false,
};

/** Options of a panel type, with their defaults, without the editors that nobody opens here. */
const options = (defaults: Record<string, unknown>) => (builder: any) => {
  for (const [id, defaultValue] of Object.entries(defaults)) {
    const nothing = () => null;
    builder.addCustomEditor({
      id, path: id, name: id, defaultValue, editor: nothing, override: nothing, process: identityOverrideProcessor,
      shouldApply: () => true,
    });
  }
};

function Words({ children }: { children: ReactNode }) {
  const style = { display: 'flex', height: '100%', alignItems: 'center', justifyContent: 'center', opacity: 0.7 };
  return <div style={style}>{children}</div>;
}

function Lines({ data, width, height, options, timeZone, timeRange, fieldConfig }: Props) {
  const frames = data.series.filter((frame) => frame.fields.some((field) => field.type === FieldType.number));
  if (!frames.length) {
    return <Words>{fieldConfig.defaults.noValue ?? 'No data'}</Words>;
  }
  return (
    <TimeSeries
      frames={frames} structureRev={data.structureRev} timeRange={timeRange} timeZone={timeZone} width={width}
      height={height} legend={options.legend} options={options}
    >
      {(config: UPlotConfigBuilder) => <Exemplars config={config} frames={data.annotations ?? []} />}
    </TimeSeries>
  );
}

function Exemplars({ config, frames }: { config: UPlotConfigBuilder; frames: DataFrame[] }) {
  const shown = useRef(frames);
  shown.current = frames;
  useLayoutEffect(() => {
    config.addHook('draw', (plot) => {
      const scale = plot.series[1]?.scale ?? 'y';
      plot.ctx.fillStyle = 'rgb(61, 113, 217)';
      for (const frame of shown.current) {
        const [times, values] = [frame.fields[0].values, frame.fields[1].values];
        for (let at = 0; at < times.length; at++) {
          const x = plot.valToPos(times[at], 'x', true);
          const y = Math.max(plot.valToPos(values[at], scale, true), plot.bbox.top);
          if (x >= plot.bbox.left && x <= plot.bbox.left + plot.bbox.width) {
            plot.ctx.beginPath();
            plot.ctx.moveTo(x, y - 3.5);
            plot.ctx.lineTo(x + 3.5, y);
            plot.ctx.lineTo(x, y + 3.5);
            plot.ctx.lineTo(x - 3.5, y);
            plot.ctx.fill();
          }
        }
      }
    });
  }, [config]);
  return null;
}

function Numbers({ data, width, height, options, fieldConfig, replaceVariables, timeZone }: Props) {
  const theme = useTheme2();
  const { reduceOptions, colorMode, graphMode, textMode, text, wideLayout } = options;
  const getValues = () =>
    getFieldDisplayValues({
      fieldConfig, reduceOptions, replaceVariables, theme, data: data.series, sparkline: graphMode !== 'none', timeZone,
    });
  return (
    <VizRepeater
      getValues={getValues} getAlignmentFactors={() => ({ text: '', title: '' })} width={width} height={height}
      source={data} itemSpacing={3} autoGrid orientation={'auto' as any}
      renderValue={({ value, width, height, count }: any) => {
        if (value.sparkline) {
          value.sparkline.timeRange = data.timeRange;
        }
        return (
          <BigValue
            value={value.display} sparkline={value.sparkline} count={count} colorMode={colorMode} graphMode={graphMode}
            textMode={textMode} text={text} justifyMode={'auto' as any} disableWideLayout={wideLayout === false}
            width={width} height={height} theme={theme}
          />
        );
      }}
    />
  );
}

function Rows({ data, width, height, options, fieldConfig }: Props) {
  const frame = data.series.find((each) => each.fields.length && each.length);
  if (!frame) {
    return <Words>{fieldConfig.defaults.noValue ?? 'No data'}</Words>;
  }
  return (
    <Table
      data={frame} width={width} height={height} noHeader={!options.showHeader} initialSortBy={options.sortBy}
      columnMinWidth={50} cellHeight={'sm' as any} timeRange={data.timeRange}
    />
  );
}

const LEVELS: Record<string, string> = {
  critical: '#705da0', error: '#e24d42', warning: '#eab839', info: '#7eb26d', debug: '#1f78c1',
};

/** Lines of a log, the latest first: a bar in the colour of the level, the time and the text. */
function Logs({ data, fieldConfig }: Props) {
  const theme = useTheme2();
  const frame = data.series.find((each) => each.length);
  if (!frame) {
    return <Words>{fieldConfig.defaults.noValue ?? 'No data'}</Words>;
  }
  const [times, lines, levels] = frame.fields.map((field) => field.values);
  const time = (at: number) => new Date(at - new Date(at).getTimezoneOffset() * 60000).toISOString().slice(0, 23).replace('T', ' ');
  const text = { ...theme.typography.bodySmall, fontFamily: theme.typography.fontFamilyMonospace, whiteSpace: 'pre' as const };
  return (
    <div style={{ height: '100%', overflow: 'hidden', ...text }}>
      {Array.from(lines, (line: string, at: number) => (
        <div key={at} style={{ display: 'flex', gap: 10, lineHeight: '20px' }}>
          <span style={{ width: 3, margin: '2px 0', background: LEVELS[levels[at]] ?? '#8e8e8e' }} />
          <span style={{ color: theme.colors.text.secondary }}>{time(times[at])}</span>
          <span>{line}</span>
        </div>
      ))}
    </div>
  );
}

function oranges(share: number, theme: GrafanaTheme2): string {
  const stops = theme.isDark
    ? [[59, 36, 22], [250, 100, 0], [255, 242, 223]]
    : [[255, 245, 235], [250, 100, 0], [127, 39, 4]];
  const [low, high, at] = share < 0.5 ? [stops[0], stops[1], share * 2] : [stops[1], stops[2], share * 2 - 1];
  return `rgb(${low.map((value, index) => Math.round(value + (high[index] - value) * at))})`;
}

const MARGIN = { left: 72, right: 8, bottom: 60 };

function Heat({ data, width, height, options, timeRange }: Props) {
  const theme = useTheme2();
  const canvas = useRef<HTMLCanvasElement>(null);
  const frames = data.series;
  useEffect(() => {
    const context = canvas.current?.getContext('2d');
    if (!context || !frames.length) {
      return;
    }
    const [inner, tall] = [width - MARGIN.left - MARGIN.right, height - MARGIN.bottom];
    const [start, end] = [timeRange.from.valueOf(), timeRange.to.valueOf()];
    const times = frames[0].fields[0].values;
    const step = times.length > 1 ? times[1] - times[0] : end - start;
    const row = tall / frames.length;
    const place = (at: number) => MARGIN.left + ((at - start) / (end - start)) * inner;
    // Buckets are cumulative: what is in one is its count without that of the bucket below.
    const counts = frames.map((frame, bucket) =>
      times.map((_: number, at: number) => {
        const below = bucket ? (frames[bucket - 1].fields[1].values[at] ?? 0) : 0;
        return (frame.fields[1].values[at] ?? 0) - below;
      })
    );
    const most = Math.max(...counts.flat());
    context.clearRect(0, 0, width, height);
    counts.forEach((cells, bucket) =>
      cells.forEach((count: number, at: number) => {
        if (count > (options.filterValues?.le ?? 0)) {
          context.fillStyle = oranges(Math.sqrt(count / most), theme);
          const wide = Math.max((step / (end - start)) * inner - 1, 1);
          context.fillRect(place(times[at]) + 0.5, tall - (bucket + 1) * row + 0.5, wide, row - 1);
        }
      })
    );
    const write = (text: string, x: number, y: number, align: CanvasTextAlign) => {
      context.fillStyle = theme.colors.text.primary;
      context.font = `12px ${theme.typography.fontFamily}`;
      context.textBaseline = 'middle';
      context.textAlign = align;
      context.fillText(text, x, y);
    };
    const format = getValueFormat(options.yAxis.unit);
    const bounds = frames.map((frame) => Number((frame.fields[1].labels?.le ?? '').replace('+Inf', 'Infinity')));
    context.fillStyle = options.exemplars?.color ?? 'magenta';
    for (const marks of data.annotations ?? []) {
      marks.fields[0].values.forEach((time: number, at: number) => {
        const bucket = bounds.findIndex((bound) => marks.fields[1].values[at] <= bound);
        if (time >= start && time <= end && bucket >= 0) {
          context.fillRect(place(time) - 2, tall - (bucket + 0.5) * row - 2, 4, 4);
        }
      });
    }
    for (let bucket = 0, below = Infinity; bucket < frames.length; bucket += Math.ceil(14 / row)) {
      const at = Math.max(tall - (bucket + 1) * row, 8);
      if (below - at < 12) {
        break; // the topmost one would cover it
      }
      below = at;
      const bound = frames[bucket].fields[1].labels?.le ?? '';
      const text = bound === '+Inf' ? bound : formattedValueToString(format(Number(bound)));
      write(text, MARGIN.left - 6, at, 'right');
    }
    for (let tick = 0.5; tick < 6; tick++) {
      const at = start + (tick * (end - start)) / 6;
      write(new Date(at).toTimeString().slice(0, 5), place(at), tall + 12, 'center');
    }
    for (let at = 0; at < 200; at++) {
      context.fillStyle = oranges(at / 200, theme);
      context.fillRect(MARGIN.left + at, tall + 30, 1, 8);
    }
    write('0', MARGIN.left, tall + 48, 'center');
    write(most.toFixed(1), MARGIN.left + 200, tall + 48, 'center');
  });
  return frames.length ? <canvas ref={canvas} width={width} height={height} /> : <Words>No data</Words>;
}

const COLOURS = ['#73bf69', '#f2cc0c', '#8ab8ff', '#ff780a'];

/** Lines over the numbers of one column. */
function Trend({ data, width, height, options, fieldConfig }: Props) {
  const theme = useTheme2();
  const fields = data.series[0]?.fields ?? [];
  const across = fields.find((field) => field.name === options.xField);
  const lines = fields.filter((field) => field !== across && field.type === FieldType.number);
  if (!across || !lines.length) {
    return <Words>{fieldConfig.defaults.noValue ?? 'No data'}</Words>;
  }
  const [left, bottom] = [50, 52];
  const [inner, tall] = [width - left - 16, height - bottom - 8];
  const x = (value: number) => left + value * inner;
  const y = (value: number) => 8 + (1 - value) * tall;
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
  return (
    <svg width={width} height={height} fontSize={12} fill={theme.colors.text.primary}>
      {ticks.map((tick) => (
        <g key={tick}>
          <path d={`M${x(0)} ${y(tick)}H${x(1)}M${x(tick)} ${y(0)}V${y(1)}`} stroke={theme.colors.border.weak} />
          <text x={left - 6} y={y(tick) + 4} textAnchor="end">{`${tick * 100}%`}</text>
          <text x={x(tick)} y={y(0) + 16} textAnchor="middle">{tick}</text>
        </g>
      ))}
      {lines.map((line, number) => {
        const name = line.config.displayName ?? line.name;
        const points = Array.from(line.values, (value, at) => `${x(Number(across.values[at]))},${y(Number(value))}`);
        const dash = line.config.custom?.lineStyle?.fill === 'dash' ? '8 6' : undefined;
        return (
          <g key={name}>
            <polyline points={points.join(' ')} fill="none" stroke={COLOURS[number]} strokeWidth={2} strokeDasharray={dash} />
            <path d={`M${left + number * 90} ${height - 12}h14`} stroke={COLOURS[number]} strokeWidth={4} />
            <text x={left + number * 90 + 20} y={height - 8}>{name}</text>
          </g>
        );
      })}
    </svg>
  );
}

type Item = Record<string, string>;

function items(series: DataFrame[], refId: string): Item[] {
  const frame = series.find((each) => each.refId === refId);
  return Array.from({ length: frame?.length ?? 0 }, (_, at) =>
    Object.fromEntries(frame!.fields.map((field) => [field.name.toLowerCase(), field.values[at]]))
  );
}

/** Places nodes by forces: all push each other away, edges pull together. */
function placed(nodes: Item[], edges: Item[]): Record<string, [number, number]> {
  const places: Record<string, [number, number]> = {};
  nodes.forEach((node, index) => {
    const angle = (2 * Math.PI * index) / nodes.length;
    places[node.id] = [Math.cos(angle) * 200, Math.sin(angle) * 100];
  });
  const push = (one: [number, number], other: [number, number], force: (distance: number) => number) => {
    const [x, y] = [one[0] - other[0], one[1] - other[1]];
    const distance = Math.hypot(x, y) || 1;
    one[0] += (x / distance) * force(distance);
    one[1] += (y / distance) * force(distance);
  };
  for (let round = 0; round < 400; round++) {
    for (const one of nodes) {
      for (const other of nodes.filter((each) => each !== one)) {
        const near = (distance: number) => Math.max(150 - distance, 0) * 0.15;
        push(places[one.id], places[other.id], (d) => Math.min(2600 / (d * d), 4) + near(d));
      }
    }
    for (const edge of edges) {
      push(places[edge.source], places[edge.target], (d) => (170 - d) * 0.03);
      push(places[edge.target], places[edge.source], (d) => (170 - d) * 0.03);
    }
  }
  return places;
}

const RADIUS = 40;

function Graph({ data, width, height }: Props) {
  const theme = useTheme2();
  const [nodes, edges] = [items(data.series, 'nodes'), items(data.series, 'edges')];
  if (!nodes.length) {
    return <Words>No data found in response</Words>;
  }
  const places = placed(nodes, edges);
  const [across, down] = [nodes.map((each) => places[each.id][0]), nodes.map((each) => places[each.id][1])];
  const [left, right, top, bottom] = [Math.min(...across), Math.max(...across), Math.min(...down), Math.max(...down)];
  const scale = Math.min(1, width / (right - left + 160), height / (bottom - top + 190));
  const middle = `translate(${width / 2} ${height / 2 - 12}) scale(${scale})`;
  return (
    <svg width={width} height={height} fontSize={10} textAnchor="middle" fill={theme.colors.text.primary}>
      <g transform={`${middle} translate(${-(left + right) / 2} ${-(top + bottom) / 2})`}>
        {edges.map((edge, index) => {
          const [[x1, y1], [x2, y2]] = [places[edge.source], places[edge.target]];
          const length = Math.hypot(x2 - x1, y2 - y1) || 1;
          const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
          const from = [x1 + dx * (RADIUS + 6), y1 + dy * (RADIUS + 6)];
          const to = [x2 - dx * (RADIUS + 16), y2 - dy * (RADIUS + 16)];
          return (
            <g key={edge.id} stroke={edge.color}>
              <marker id={`head${index}`} markerUnits="userSpaceOnUse" refY={6} markerWidth={12} markerHeight={12} orient="auto">
                <path d="M0 0L12 6L0 12z" fill={edge.color} stroke="none" />
              </marker>
              <line x1={from[0]} y1={from[1]} x2={to[0]} y2={to[1]} markerEnd={`url(#head${index})`} />
            </g>
          );
        })}
        {nodes.map((node) => (
          <g key={node.id} transform={`translate(${places[node.id]})`}>
            <circle r={RADIUS} fill={theme.colors.background.primary} stroke={node.color} strokeWidth={2} />
            <text y={4}>{node.mainstat}</text>
            <text y={RADIUS + 16}>{node.title}</text>
          </g>
        ))}
      </g>
    </svg>
  );
}

const palette: any = { settings: {}, defaultValue: { mode: FieldColorModeId.PaletteClassic } };

/** By the name of the type in a board's JSON. */
export const PLUGINS: Record<string, PanelPlugin<any, any>> = {
  timeseries: new PanelPlugin<any>(Lines)
    .useFieldConfig({ standardOptions: { [FieldConfigProperty.Color]: palette }, useCustomConfig: options(GRAPH) })
    .setDataSupport({ annotations: true, alertStates: false }),
  stat: new PanelPlugin<any>(Numbers).useFieldConfig({}),
  table: new PanelPlugin<any>(Rows).useFieldConfig({ useCustomConfig: options(CELLS) }),
  heatmap: new PanelPlugin<any>(Heat).useFieldConfig({ useCustomConfig: options({ hideFrom: GRAPH.hideFrom }) })
    .setDataSupport({ annotations: true, alertStates: false }),
  trend: new PanelPlugin<any>(Trend).useFieldConfig({
    standardOptions: { [FieldConfigProperty.Color]: palette }, useCustomConfig: options(GRAPH),
  }),
  logs: new PanelPlugin<any>(Logs).useFieldConfig({}),
  nodeGraph: new PanelPlugin<any>(Graph).useFieldConfig({}),
};
